package reputation

import (
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// group is a sort of content.
type group uint8

const (
	program  group = iota + 1 // what runs, scripts among it
	archive                   // what programs are packed in
	document                  // what can hold programs
)

// mimes are the media types of content that can do harm, as Zeek and Suricata's
// libmagic find them and as servers give them. Scripts of web pages are
// everywhere and not among them.
var mimes = makeMimes()

func makeMimes() map[string]group {
	m := make(map[string]group)
	for g, list := range map[group]string{
		program: `application/x-dosexec application/x-msdownload application/vnd.microsoft.portable-executable application/x-ms-dos-executable
			application/x-msdos-program application/x-executable application/x-elf application/x-sharedlib application/x-pie-executable
			application/x-mach-o-executable application/x-mach-binary application/x-msi application/x-ms-installer application/hta
			application/java-archive application/x-java-archive application/x-java-applet application/vnd.android.package-archive
			application/x-shockwave-flash application/x-ms-shortcut
			text/x-shellscript application/x-sh text/x-perl text/x-python text/x-ruby text/x-lua text/x-msdos-batch text/vbscript
			application/x-powershell`,
		archive: `application/zip application/x-zip-compressed application/x-rar application/x-rar-compressed application/vnd.rar
			application/x-7z-compressed application/gzip application/x-gzip application/x-bzip2 application/x-xz application/x-tar
			application/vnd.ms-cab-compressed application/x-iso9660-image`,
		document: `application/pdf application/msword application/rtf text/rtf application/vnd.ms-excel application/vnd.ms-powerpoint
			application/vnd.ms-office application/vnd.ms-word.document.macroenabled.12 application/vnd.ms-excel.sheet.macroenabled.12
			application/vnd.openxmlformats-officedocument.wordprocessingml.document
			application/vnd.openxmlformats-officedocument.spreadsheetml.sheet
			application/vnd.openxmlformats-officedocument.presentationml.presentation application/onenote`,
	} {
		for t := range strings.FieldsSeq(list) {
			m[t] = g
		}
	}
	return m
}

// short is the end of a name in lower case, so that it can be looked up without
// allocation.
type short [6]byte

func lower(ext string) (s short) {
	for i := range min(len(ext), len(s)) {
		c := ext[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		s[i] = c
	}
	return s
}

// extensions are the ends of names of such content. The last of the programs
// are those by which malware for small devices names its builds.
var extensions = makeExtensions()

func makeExtensions() map[short]group {
	m := make(map[short]group)
	for g, list := range map[group]string{
		program: `exe dll scr msi pif cpl sys ocx bin elf hta jar apk lnk sh bash ps1 psm1 vbs vbe jse wsf wsh bat cmd msix appx
			arm arm4 arm5 arm6 arm7 armv7l mips mipsel mpsl x86 x86_64 i586 i686 ppc m68k sh4 spc sparc arc`,
		archive:  "zip rar 7z gz tgz bz2 xz tar cab iso vhd ace arj",
		document: "pdf doc docx docm dot dotm xls xlsx xlsm xlsb ppt pptx pptm rtf one",
	} {
		for e := range strings.FieldsSeq(list) {
			m[lower(e)] = g
		}
	}
	return m
}

// ending returns the extension of the last part of a path; empty when it has
// none that is known to be short.
func ending(path string) string {
	if i := strings.IndexAny(path, "?#;"); i >= 0 {
		path = path[:i]
	}
	i := strings.LastIndexAny(path, `/\.`)
	if i < 0 || path[i] != '.' || len(path)-i-1 > len(short{}) {
		return ""
	}
	return path[i+1:]
}

// bare returns a media type without its parameters.
func bare(m string) string {
	if i := strings.IndexByte(m, ';'); i >= 0 {
		m = m[:i]
	}
	return strings.TrimSpace(m)
}

// download reports whether a response brought a program, a script or an
// archive: by what it is where the sensor says so, else by its name.
func download(h *flow.HTTPPart) bool {
	if h.StatusCode != 0 && h.StatusCode/100 != 2 || h.Method != "GET" && h.Method != "" && h.Method != "POST" {
		return false
	}
	for _, m := range h.RespMIMETypes {
		m = bare(m)
		if g := mimes[m]; g == program || g == archive {
			return true
		}
		if m == "text/html" || strings.HasPrefix(m, "image/") {
			return false // a page that says sorry, or a picture that is called so
		}
	}
	g := extensions[lower(ending(h.URI))]
	return g == program || g == archive
}

// runs reports whether a file is one that can do harm.
func runs(f *flow.FilesPart) bool {
	if mimes[bare(f.MIMEType)] != 0 {
		return true
	}
	// Where the sensor names another type it is right, and the name is not.
	unknown := f.MIMEType == "" || f.MIMEType == "application/octet-stream"
	return unknown && extensions[lower(ending(f.Filename))] != 0
}
