package ransom

import "strings"

// base returns the last part of a path.
func base(name string) string { return name[strings.LastIndexByte(name, '\\')+1:] }

// folder returns the path without its last part.
func folder(name string) string { return name[:max(strings.LastIndexByte(name, '\\'), 0)] }

// ending returns what follows the last dot of a file's name, "" where nothing
// stands before it.
func ending(name string) string {
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		return name[i+1:]
	}
	return ""
}

// stem returns a path without its last ending.
func stem(name string) string {
	if e := ending(base(name)); e != "" {
		return name[:len(name)-len(e)-1]
	}
	return name
}

// reEnded reports whether a file of an ordinary kind got an ending that files in
// ordinary use do not have. One that loses its last ending was finished, as a
// download is.
func reEnded(old, name string) bool {
	o, n := ending(base(old)), ending(base(name))
	return ordinary(o) && strange(n) && !hidden(base(old)) && !hidden(base(name)) && !(len(old) > len(name) && strings.EqualFold(old[:len(name)], name))
}

// appended reports whether a file of an ordinary kind has one ending more that is
// strange: "report.docx.lockbit".
func appended(name string) bool {
	b := base(name)
	e := ending(b)
	if !strange(e) || hidden(b) {
		return false
	}
	return ordinary(ending(b[:len(b)-len(e)-1]))
}

// strange reports whether an ending is none of those that files have in ordinary
// use. Numbers are volumes and versions; ~ is an editor's copy.
func strange(e string) bool {
	return len(e) >= 2 && !ordinary(e) && !passing(e) && !version(e)
}

// hidden reports whether a name is one of those that programs give to what is
// not for people: "~$report.docx", ".report.docx.Ab3xYz".
func hidden(b string) bool { return b == "" || b[0] == '~' || b[0] == '.' || b[0] == '$' }

// version reports whether an ending is a number, or a v and a number.
func version(e string) bool {
	if lower(e[0]) == 'v' {
		e = e[1:]
	}
	for i := range len(e) {
		if (e[i] < '0' || e[i] > '9') && e[i] != '-' && e[i] != '_' {
			return false
		}
	}
	return true
}

// low writes a short ending in lower case, for look-ups that do not allocate.
func low(e string, b *[12]byte) []byte {
	if len(e) > len(b) {
		return nil
	}
	for i := range len(e) {
		b[i] = lower(e[i])
	}
	return b[:len(e)]
}

// ordinary knows the endings of documents, pictures, sound, programs, archives
// and data: what people and programs name files, and what is worth encrypting.
func ordinary(e string) bool {
	var b [12]byte
	switch string(low(e, &b)) {
	case "doc", "docx", "docm", "dot", "dotx", "rtf", "odt", "ods", "odp", "odg", "xls", "xlsx", "xlsm", "xlsb", "xlt", "xltx", "csv", "tsv", "ppt", "pptx",
		"pptm", "pps", "ppsx", "pdf", "ps", "eps", "txt", "md", "rst", "log", "tex", "xps", "vsd", "vsdx", "pub", "one", "onepkg", "msg", "eml", "pst", "ost",
		"vcf", "ics", "epub", "mpp", "pages", "numbers", "key",
		"jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "tif", "tiff", "webp", "heic", "heif", "svg", "ico", "psd", "psb", "ai", "indd", "idml", "xcf", "raw",
		"cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "dng", "xmp", "dwg", "dxf", "dgn", "rvt", "skp", "stl", "step", "stp", "iges", "sldprt", "sldasm",
		"mp3", "wav", "flac", "m4a", "aac", "ogg", "wma", "mid", "mp4", "m4v", "mov", "avi", "mkv", "wmv", "mpg", "mpeg", "webm", "flv", "vob", "ts", "mts", "srt",
		"zip", "rar", "tar", "gz", "tgz", "bz2", "xz", "zst", "lz4", "lzma", "7z", "cab", "iso", "img", "jar", "war", "ear", "apk", "ipa", "deb", "rpm", "msi",
		"msu", "dmg", "vhd", "vhdx", "vmdk", "vdi", "ova", "qcow2", "vbk", "vib", "vbm", "vrb", "tib", "tibx", "bkf", "bkup", "spf", "mrimg", "gho", "gpg", "pgp",
		"asc", "sig", "sha256", "md5", "p12", "pfx", "pem", "crt", "cer",
		"exe", "dll", "sys", "com", "bat", "cmd", "ps1", "psm1", "vbs", "js", "mjs", "jsx", "tsx", "map", "so", "lib", "obj", "o", "a", "pdb", "class", "pyc",
		"py", "rb", "pl", "php", "go", "rs", "java", "kt", "cs", "vb", "cpp", "cc", "c", "h", "hpp", "m", "swift", "r", "sh", "sql", "lua", "asm", "css", "scss",
		"less", "htm", "html", "xhtml", "mht", "asp", "aspx", "jsp", "vue", "xml", "xsl", "xslt", "xsd", "json", "yaml", "yml", "toml", "ini", "inf", "conf", "cfg",
		"config", "reg", "properties", "lnk", "url", "ttf", "otf", "woff", "woff2", "chm", "hlp", "pol", "adm", "admx", "adml",
		"db", "sqlite", "sqlite3", "mdb", "accdb", "dbf", "mdf", "ndf", "ldf", "frm", "ibd", "myd", "myi", "fdb", "dat", "data", "bin", "idx", "pak", "parquet",
		"avro", "qbw", "qbb", "tax", "edi", "hl7", "dcm", "shp", "nc", "h5", "mat", "sav", "rdata", "rds", "ipynb", "csproj", "sln", "vcxproj":
		return true
	}
	return false
}

// passing knows the endings that programs give for a time, while they write or
// once they have done with a file.
func passing(e string) bool {
	if n := len(e); n == 0 || e[n-1] == '~' || e[0] == '~' || e[0] == '!' || e[0] == '$' {
		return true
	}
	for _, p := range [...]string{"tmp", "temp", "sb-", "bak", "old", "part", "dwl"} {
		if len(e) >= len(p) && strings.EqualFold(e[:len(p)], p) || len(e) > len(p) && strings.EqualFold(e[len(e)-len(p):], p) {
			return true
		}
	}
	var b [12]byte
	switch string(low(e, &b)) {
	case "backup", "bk", "bck", "orig", "save", "saved", "prev", "previous", "copy", "new", "swp", "swo", "swx", "lock", "lck", "crdownload", "download",
		"filepart", "incomplete", "opdownload", "aria2", "ut", "bc", "qb", "dropbox", "dctmp", "upload", "uploading", "writing", "wrk", "work", "wip",
		"pending", "queued", "ready", "processing", "processed", "process", "proc", "done", "ok", "sent", "send", "ack", "nak", "err", "error", "errors",
		"failed", "fail", "bad", "reject", "rejected", "imported", "import", "exported", "loaded", "archive", "archived", "arc", "moved", "deleted", "del",
		"disabled", "off", "inactive", "rej", "merged", "conflict", "mine", "base", "local", "remote", "dist", "sample", "example", "default":
		return true
	}
	return false
}

// demands are parts of the names of texts in which ransomware says how to pay.
var demands = [...]string{
	"decrypt", "ransom", "recover", "restore", "unlock", "encrypted", "your_files", "your-files", "your files", "yourfiles", "back_files", "back-files", "get_back",
}

// demand reports whether a file is a text or a page with such a name.
func demand(name string) bool {
	b := base(name)
	e := ending(b)
	if !strings.EqualFold(e, "txt") && !strings.EqualFold(e, "html") && !strings.EqualFold(e, "htm") && !strings.EqualFold(e, "hta") && !strings.EqualFold(e, "rtf") {
		return false
	}
	for i := range len(b) {
		for _, d := range demands {
			if len(b)-i >= len(d) && strings.EqualFold(b[i:i+len(d)], d) {
				return true
			}
		}
	}
	return false
}
