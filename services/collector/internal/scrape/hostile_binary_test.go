package scrape_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// sub is a field that holds what is in parts.
func sub(number protowire.Number, parts ...string) string {
	return string(protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), []byte(strings.Join(parts, ""))))
}

// num is a field that is a number.
func num(number protowire.Number, v uint64) string {
	return string(protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), v))
}

func float(number protowire.Number, v float64) string {
	return string(protowire.AppendFixed64(protowire.AppendTag(nil, number, protowire.Fixed64Type), math.Float64bits(v)))
}

// wire is one family of the parts that are given, as it is sent.
func wire(parts ...string) string {
	return string(protowire.AppendBytes(nil, []byte(strings.Join(parts, ""))))
}

// histograms is a family of native histograms.
func histograms(bodies ...string) string {
	parts := []string{sub(1, "h"), num(3, 4)}
	for i, b := range bodies {
		parts = append(parts, sub(4, sub(1, sub(1, "i"), sub(2, fmt.Sprint(i))), sub(7, b)))
	}
	return wire(parts...)
}

// span is one of the positive side.
func span(offset int64, length uint64) string {
	return sub(12, num(1, protowire.EncodeZigZag(offset)), num(2, length))
}

func binary(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", protobuf)
		_, _ = io.WriteString(w, body)
	}
}

// hostileProtobuf are producers that send messages to whoever decodes them.
func hostileProtobuf() []villain {
	const malformed, large, many = schedule.ReasonMalformed, schedule.ReasonTooLarge, schedule.ReasonTooManySamples
	label := sub(1, sub(1, "a"), sub(2, "b"))
	wide := make([]string, 0, 60)
	for i := range 60 {
		wide = append(wide, sub(1, sub(1, fmt.Sprint("l", i)), sub(2, strings.Repeat("x", 16<<10))))
	}
	zeros := span(0, 9000) + sub(13, strings.Repeat("\x02\x01", 4500)) // One, none, one, none.
	exemplar := sub(16, sub(3))
	gauge := func(metric ...string) string { return wire(sub(1, "a"), num(3, 1), sub(4, metric...)) }
	var all []villain
	for _, v := range []struct {
		name, body string
		reason     schedule.Reason
		message    string
	}{
		{"a message of 2^63 bytes", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", malformed, ""},
		{"a length that never ends", strings.Repeat("\x80", 1<<20), malformed, ""},
		{"a message that is cut off", wire(sub(1, "a"), num(3, 1), sub(4, sub(2, float(1, 1))))[:9], malformed, ""},
		{"fifteen million families of nothing", strings.Repeat("\x00", 15<<20), malformed, "without a metric"},
		{"a tower of groups", wire(strings.Repeat("\x0b", 1<<20)), malformed, "not a message"},
		{"a text", "a 1\n", malformed, ""},
		{"seven million metrics", wire(sub(1, "a"), num(3, 1), strings.Repeat(sub(4), 7<<20)), many, "metrics"},
		{"seven million labels", gauge(strings.Repeat(sub(1), 7<<20)), large, "64 labels"},
		{"15 MB of a label in protobuf", gauge(sub(1, sub(1, "a"), sub(2, strings.Repeat("x", 15<<20)))), large, "of more than"},
		{"15 MB of a name in protobuf", wire(sub(1, strings.Repeat("\xff", 15<<20)), sub(4)), large, "of more than"},
		{"15 MB of help in protobuf", wire(sub(1, "a"), sub(2, strings.Repeat("x", 15<<20)), sub(4)), large, "of more than"},
		{"a long unit", wire(sub(1, "a"), sub(5, strings.Repeat("x", 100_000)), sub(4)), large, "100000 bytes"},
		{"a megabyte of labels for each of 50,000 buckets", wire(sub(1, "a"), num(3, 4), sub(4, append(wide, sub(7, strings.Repeat(sub(3), 49_000)))...)), large, "series of more than"},
		{"five million buckets", wire(sub(1, "a"), num(3, 4), sub(4, sub(7, strings.Repeat(sub(3), 5<<20)))), large, "buckets"},
		{"five million quantiles", wire(sub(1, "a"), num(3, 2), sub(4, sub(4, strings.Repeat(sub(3), 5<<20)))), large, "quantiles"},
		{"60,000 samples of classic histograms", wire(sub(1, "a"), num(3, 4), sub(4, sub(7, strings.Repeat(sub(3), 60_000)))), many, "50000 samples"},
		{"five million spans", histograms(strings.Repeat(sub(12), 5<<20)), large, "spans"},
		{"fifteen million deltas", histograms(span(0, 15<<20) + sub(13, strings.Repeat("\x00", 15<<20))), large, "spans and buckets"},
		{"deltas one by one", histograms(span(0, 20_000) + strings.Repeat(num(13, 0), 20_000)), large, "spans and buckets"},
		{"two million counts", histograms(float(4, 1) + span(0, 1) + sub(14, strings.Repeat("\x00", 15<<20))), large, "spans and buckets"},
		{"1,000 large histograms of gaps", histograms(repeated(zeros, 1000)...), large, "large native histograms"},
		{"a span of 2^32 buckets", histograms(span(0, math.MaxUint32) + sub(13, "\x02")), malformed, ""},
		{"a span of more buckets than there are, second", histograms("", span(0, 1)+num(13, 2)+num(1, 1), span(0, 1000)+num(13, 2)), malformed, ""},
		{"spans beyond all numbers", histograms(num(1, 2) + span(math.MaxInt32, 1) + span(math.MaxInt32, 1) + sub(13, "\x02\x00")), malformed, "beyond all numbers"},
		{"spans that go back", histograms(num(1, 2) + span(0, 1) + span(-5, 1) + sub(13, "\x02\x00")), malformed, "histogram"},
		{"a schema of 100", histograms(num(1, 1) + num(5, protowire.EncodeZigZag(100)) + span(0, 1) + sub(13, "\x02")), malformed, "schema"},
		{"custom buckets without bounds", histograms(num(1, 2) + num(5, protowire.EncodeZigZag(-53)) + span(0, 2) + sub(13, "\x02\x00")), malformed, ""},
		{"a negative bucket", histograms(num(1, 1) + span(0, 1) + sub(13, "\x01")), malformed, "negative"},
		{"three million exemplars", histograms(span(0, 0) + strings.Repeat(exemplar, 3<<20)), large, "exemplars"},
		{"seven million labels of an exemplar", histograms(span(0, 0) + sub(16, strings.Repeat(sub(1), 7<<20), sub(3))), large, "exemplars"},
		{"exemplars all over", histograms(repeated(span(0, 0)+strings.Repeat(exemplar, 100), 20_000)...), large, "histograms and exemplars"},
		{"invalid UTF-8 in the name of a family", wire(sub(1, "a\xff"), sub(4)), malformed, ""},
		{"invalid UTF-8 in help of protobuf", wire(sub(1, "a"), sub(2, "\xff"), sub(4)), malformed, ""},
		{"invalid UTF-8 in a label of protobuf", gauge(sub(1, sub(1, "a"), sub(2, "\xff"))), malformed, ""},
		{"invalid UTF-8 in a label's name of protobuf", gauge(sub(1, sub(1, "\xff"), sub(2, "a"))), malformed, ""},
		{"no name in protobuf", wire(num(3, 1), sub(4)), malformed, ""},
		{"unknown type in protobuf", wire(sub(1, "a"), num(3, 77), sub(4)), malformed, "type"},
		{"label twice in protobuf", gauge(label, label), malformed, "twice"},
		{"name as a label in protobuf", gauge(sub(1, sub(1, "__name__"), sub(2, "b"))), malformed, "twice"},
		{"label without a name", gauge(sub(1, sub(2, "b"))), malformed, ""},

		{"ok: families of nothing", strings.Repeat("\x00", 1000), 0, ""},
		{"ok: metrics of nothing", wire(sub(1, "a"), num(3, 4), sub(4)) + wire(sub(1, "b"), num(3, 2), sub(4)) + wire(sub(1, "c"), sub(4)), 0, ""},
		{"ok: unknown fields", wire(sub(1, "a"), num(3, 1), sub(99, strings.Repeat("x", 1<<20)), sub(4, sub(2, float(1, 1)), sub(77, "y"))), 0, ""},
		{"ok: duplicates in protobuf", wire(sub(1, "a"), num(3, 1), strings.Repeat(sub(4, sub(2, float(1, 1))), 40_000)), 0, ""},
		{"ok: a bucket of NaN", histograms(float(4, 1) + span(0, 1) + float(14, math.NaN())), 0, ""},
		{"ok: as many large native histograms as may be", histograms(repeated(num(1, 4500)+zeros, 50)...), 0, ""},
		{"ok: a large native histogram", histograms(num(1, 4500) + zeros), 0, ""},
		{"ok: 20,000 native histograms", histograms(repeated(num(1, 50)+span(0, 50)+sub(13, "\x02"+strings.Repeat("\x00", 49)), 20_000)...), 0, ""},
	} {
		all = append(all, villain{name: v.name, handler: binary(v.body), reason: v.reason, message: v.message})
	}
	return all
}

func repeated(s string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// frame is one of zstd, with blocks of its own.
func frame(blocks ...string) string { return "\x28\xb5\x2f\xfd\x00\x58" + strings.Join(blocks, "") }

// block has a kind (0 as it is, 1 one byte repeated) and a size that it claims.
func block(last bool, kind, size int, content string) string {
	head := size<<3 | kind<<1
	if last {
		head |= 1
	}
	return string([]byte{byte(head), byte(head >> 8), byte(head >> 16)}) + content
}

// hostileZstd are producers that compress.
func hostileZstd() []villain {
	const malformed, large = schedule.ReasonMalformed, schedule.ReasonTooLarge
	good := string(compressed("zstd", []byte(numbered(1000))))
	swapped := []byte(good)
	swapped[len(swapped)-1] ^= 1
	skip := "\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
	feeds := block(false, 1, 128<<10, "\n")
	var all []villain
	for _, v := range []struct {
		name, body string
		endless    string // behind body
		reason     schedule.Reason
		message    string
	}{
		{"zstd bomb", frame(strings.Repeat(feeds, 8192), block(true, 0, 0, "")), "", large, "a body of more"},
		{"zstd bomb of many frames", strings.Repeat(frame(block(true, 1, 128<<10, "\n")), 8192), "", large, "a body of more"},
		{"zstd bomb of zstd's own making", string(compressed("zstd", bytes.Repeat([]byte("a 1\n"), 8<<20))), "", large, "a body of more"},
		{"zstd that lies of its size", "\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x0f" + block(true, 0, 4, "a 1\n"), "", large, "a body of more"},
		{"zstd that claims too little", "\x28\xb5\x2f\xfd\x20\x01" + block(true, 0, 4, "a 1\n"), "", malformed, "zstd: "},
		{"zstd with a window of terabytes", "\x28\xb5\x2f\xfd\x00\xff" + block(true, 0, 4, "a 1\n"), "", malformed, "window"},
		{"zstd of frames of nothing, for ever", "", frame(block(true, 0, 0, "")), large, "compressed"},
		{"zstd of blocks of nothing, for ever", frame(), block(false, 0, 0, ""), large, "compressed"},
		{"zstd of frames to skip, for ever", "", skip, large, "compressed"},
		{"zstd frame to skip that is not there", "\x50\x2a\x4d\x18\xff\xff\xff\xffskip", "", malformed, "EOF"},
		{"truncated zstd", good[:len(good)-10], "", malformed, "EOF"},
		{"truncated zstd, in the magic number", good[:3], "", malformed, "EOF"},
		{"no zstd at all", "a 1\nb 2\n", "", malformed, "magic"},
		{"nothing, in zstd", "", "", malformed, "EOF"},
		{"zstd with a wrong sum", string(swapped), "", malformed, "zstd: "},
		{"zstd with a dictionary", "\x28\xb5\x2f\xfd\x01\x58\x07" + block(true, 0, 4, "a 1\n"), "", malformed, "dict"},
		{"zstd block of a reserved kind", frame(block(true, 3, 4, "a 1\n")), "", malformed, "zstd: "},
		{"zstd in zstd", string(compressed("zstd", []byte(good))), "", malformed, ""},

		{"ok: zstd", good, "", 0, ""},
		{"ok: several frames and some to skip", skip + frame(block(false, 0, 2, "a "), block(true, 0, 2, "1\n")) + skip + skip + good, "", 0, ""},
		{"ok: zstd of nothing", frame(block(true, 0, 0, "")), "", 0, ""},
		{"ok: 15 MB in zstd", string(compressed("zstd", bytes.Repeat([]byte("#\n"), 7<<20))), "", 0, ""},
	} {
		all = append(all, villain{name: v.name, reason: v.reason, message: v.message, handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Encoding", "zstd")
			_, _ = io.WriteString(w, v.body)
			if v.endless != "" {
				repeat(w, v.endless, -1)
			}
		}})
	}
	return all
}
