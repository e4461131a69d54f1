// Package export writes what a run found to its output directory:
//
//	alerts/evidence.jsonl   one JSON object for each evidence
//	alerts/alerts.jsonl     one JSON object for each alert, with what it adds up
//	alerts/alerts.log       one line of text for each evidence and alert
//	alerts/alerts.json      the same as IDMEFv2 messages, one a line
//	flows/labeled_flows.*   on request, each input record with its label
//	flows/letters.tsv       on request, the behaviour of each tuple as letters
//	flows/timeline.jsonl    on request, what each host did, record by record
//	metadata/               effective configuration and run.json
//	summary.json            counts and speed
//
// # Formats
//
// Times are RFC 3339 in UTC with nine decimals. Keys and their order are
// fixed: a key that does not apply is null, an empty list is []. Numbers are
// rounded to six decimals. A port of 0 means none. Nothing but summary.json
// and run.json depends on the wall clock, unless Options.Clock is set.
//
// A line of alerts.log for evidence and one for an alert:
//
//	<time> (TW <n>): Src IP <profile, 26 columns>. Detected <description> Threat level: <level>.
//	<time>: Src IP <profile, 26 columns>. Generated an alert given enough evidence on timewindow <n>. (stream time <time>) <score>.
//
// where <score> is such as: score 20.63 = 16.5 × 1.25 (discovery + command-and-control), threshold 15
//
// The time is that of the evidence, with six decimals and the offset of
// Options.Location. Text from the traffic is escaped, so it stays on its line.
//
// # Restart
//
// The files only grow. A checkpoint notes their sizes (Marks). After a clean
// stop Resume cuts them back to these: what was written behind the checkpoint
// was provisional and comes again. After a crash it keeps every whole line
// behind the checkpoint and leaves out the same line when it comes again, so
// no reader of the files sees a line vanish, none is lost and none is there
// twice. What is in flows/ is always cut back and written again.
//
// # Errors
//
// A file that cannot be written fails with a *WriteError, again at every
// later call, and is left at the end of its last whole line.
package export
