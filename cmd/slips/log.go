package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// discard returns a logger for those who must have one and say nothing.
func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// newLog returns the logger of a run. w is slips.log in the output directory;
// verbose is parameters.verbose, 0 to 3. Warnings and errors are shown to the
// user as well.
func newLog(w io.Writer, verbose int, ui UI) *slog.Logger {
	level := slog.LevelInfo
	switch {
	case verbose <= 0:
		level = slog.LevelWarn
	case verbose >= 3:
		level = slog.LevelDebug
	}
	return slog.New(slog.NewMultiHandler(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}), noteHandler{ui: ui}))
}

// noteHandler shows warnings and errors as notes. Source and line, where a
// record has them, come first, as people and editors expect.
type noteHandler struct {
	ui     UI
	attrs  []slog.Attr // keys carry their groups
	groups string
}

var _ slog.Handler = noteHandler{}

// Enabled implements slog.Handler.
func (noteHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h noteHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := h.attrs[:len(h.attrs):len(h.attrs)]
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, slog.Attr{Key: h.groups + a.Key, Value: a.Value})
		return true
	})
	var where, rest strings.Builder
	for _, a := range attrs {
		switch a.Key {
		case "source", "file", "path":
			if where.Len() == 0 {
				fmt.Fprintf(&where, "%s:", a.Value)
				continue
			}
		case "line":
			if where.Len() > 0 {
				fmt.Fprintf(&where, "%s:", a.Value)
				continue
			}
		}
		v := a.Value.Resolve().String()
		if strings.ContainsAny(v, " ,=\"") {
			v = fmt.Sprintf("%q", v)
		}
		fmt.Fprintf(&rest, ", %s %s", a.Key, v)
	}
	text := strings.ToLower(r.Level.String()) + ": "
	if r.Level == slog.LevelWarn {
		text = "warning: "
	}
	if where.Len() > 0 {
		text += where.String() + " "
	}
	h.ui.Note(text + r.Message + rest.String())
	return nil
}

// WithAttrs implements slog.Handler.
func (h noteHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = h.attrs[:len(h.attrs):len(h.attrs)]
	for _, a := range attrs {
		h.attrs = append(h.attrs, slog.Attr{Key: h.groups + a.Key, Value: a.Value})
	}
	return h
}

// WithGroup implements slog.Handler.
func (h noteHandler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.groups += name + "."
	}
	return h
}
