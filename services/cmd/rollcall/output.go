package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// output is where commands write: what was asked for to out, remarks to remarks.
type output struct{ out, remarks io.Writer }

// json writes a message as one line.
func (o output) json(m proto.Message) error {
	line, err := protojson.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = fmt.Fprintf(o.out, "%s\n", line)
	return err
}

// jsonOf is json for what one of several collectors says; an empty id is that of
// the only one.
func (o output) jsonOf(collector string, m proto.Message) error {
	if collector == "" {
		return o.json(m)
	}
	line, err := protojson.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = fmt.Fprintf(o.out, "{%q:%q,%q:%s}\n", "collectorId", collector, "held", line)
	return err
}

// table writes rows under a heading, in columns. Nothing but the rows is held in
// memory, so a long list is written as several tables, the first with a heading.
func (o output) table(heading []string, rows [][]string) error {
	w := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	if len(heading) > 0 {
		fmt.Fprintln(w, strings.Join(heading, "\t"))
	}
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// span writes a duration; none is a dash.
func span(d *durationpb.Duration) string {
	if d == nil {
		return "-"
	}
	return d.AsDuration().String()
}

// ago writes how long ago a time was; none is a dash.
func ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	d := time.Since(t.AsTime())
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}

// clock writes a time; none is a dash.
func clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().Format(time.RFC3339)
}

// short is the name of an enum's value without its type.
func short(name, prefix string) string { return strings.TrimPrefix(name, prefix) }

// labelText writes labels as Prometheus does.
func labelText(labels []*registryv1.Label) string {
	texts := make([]string, len(labels))
	for i, l := range labels {
		texts[i] = fmt.Sprintf("%s=%q", l.GetName(), l.GetValue())
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// dash makes an empty cell visible.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
