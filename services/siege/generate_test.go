package siege_test

import (
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A tape is the bytes that decide what is made. It ends in zeros. Of a tame one,
// most of what is made is what a client could send.
type tape struct {
	left []byte
	tame bool
	made int // bytes
}

func (t *tape) next() byte {
	if len(t.left) == 0 {
		return 0
	}
	b := t.left[0]
	t.left = t.left[1:]
	return b
}

// of picks from so many.
func (t *tape) of(n int) int { return int(t.next()) % n }

func (t *tape) uint64() (n uint64) {
	for range 8 {
		n = n<<8 | uint64(t.next())
	}
	return n
}

// maxMade bounds what is made: a little more than a request may have.
const maxMade = 9 << 20

// known are strings that mean something to the fort, or to what is behind it.
var known = []string{
	"p1", "p2", "p3", "c1", "c2", "instance", "job", "instance-1", "rollcall/registry", "default", "http://h.example:9100/metrics",
	"grpc://h.example:7480", "https://[2001:db8::1]/", "http://169.254.169.254/", "http://2852039166/", "http://127.0.0.1/", "h.example:7480",
	"127.0.0.1:1", "169.254.169.254:80", "__name__", "a", ".*", "(((((", "eu", "", "\x00", "a\r\nX-Evil: 1", "../../../etc/passwd", "/", "\xff\xfe\xc3", "ä",
	"\u202e", "cDE", "cDE=", "AAAA", strings.Repeat("x", 128), strings.Repeat("x", 129), strings.Repeat("y", 5000), strings.Repeat("z", 1<<20),
}

// fields are strings that a field of that name wants.
var fields = map[string][]string{
	"producer_id": {"p1", "p2", "p3", "new"}, "collector_id": {"c1", "c1", "c2"}, "instance_id": {"instance-1", "instance-2"},
	"endpoint": {"http://h.example:9100/metrics", "grpc://h.example:1"}, "introspection_endpoint": {"h.example:7480"},
	"name": {"job", "zone", "a"}, "value": {"x", "p1"}, "last_collector_id": {"c1"}, "page_token": {"cDE", "YzE"},
	"subscription_id": {"s"}, "epoch": {"e"}, "held_producer_ids": {"p1"},
}

// numbers are those at which arithmetic goes wrong.
var numbers = []uint64{
	0, 1, 2, 3, 10, 100, 1000, 1 << 20, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64, math.MaxUint64 - 1,
	1e9, 999_999_999, 315_576_000_000, 315_576_000_001, 253_402_300_799, 253_402_300_800, 1_700_000_000, 1_700_000_000_000,
}

// sane are numbers that a field of that name wants.
var sane = map[string][]uint64{
	"seconds": {0, 60, 3600}, "nanos": {0}, "generation": {1, 2}, "start_ms": {0}, "end_ms": {1 << 41}, "type": {1, 2}, "kind": {1, 2, 3}, "mode": {1, 2, 3}, "outcome": {1, 2},
	"limit": {0, 100}, "max_bytes": {0, 1 << 20},
}

var floats = []float64{0, 1, -1, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, math.Copysign(0, -1), 1e12, 1e300}

// message appends the bytes of a message of a type, more or less.
func (t *tape) message(b []byte, d protoreflect.MessageDescriptor, depth int) []byte {
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		choice := t.next()
		if t.leaves(f, choice, depth) || t.made > maxMade {
			continue
		}
		n := 1
		if (f.IsList() || f.IsMap()) && !t.tame {
			n = []int{1, 1, 2, 3, 10, 10, 500, 3000}[choice>>1&7]
		}
		if choice > 250 && !t.tame {
			n++ // twice what is once: the last one counts, and messages are merged
		}
		before := len(b)
		b = t.field(b, f, depth)
		one := b[before:]
		t.made += len(one)
		for range n - 1 {
			if t.made > maxMade {
				break
			}
			before = len(b)
			if n <= 10 {
				b = t.field(b, f, depth)
			} else {
				b = append(b, one...)
			}
			t.made += len(b) - before
		}
	}
	return t.noise(b)
}

// leaves tells whether a field is left out.
func (t *tape) leaves(f protoreflect.FieldDescriptor, choice byte, depth int) bool {
	name := string(f.Name())
	switch {
	case t.tame && name == "accepted":
		return choice&3 != 3
	case strings.HasSuffix(name, "_id"), name == "endpoint", f.Message() != nil && depth == 0, t.tame && f.IsList() && f.Message() != nil:
		return false
	case t.tame && sane[name] != nil:
		return false
	default:
		return choice&1 == 0 || t.tame && choice&2 == 0
	}
}

// noise appends what no message of this type has.
func (t *tape) noise(b []byte) []byte {
	c := t.next()
	if t.tame {
		return b
	}
	switch c {
	case 1:
		return protowire.AppendBytes(protowire.AppendTag(b, 12345, protowire.BytesType), make([]byte, 1<<16))
	case 2:
		return protowire.AppendVarint(protowire.AppendTag(b, protowire.Number(1+t.next()), protowire.VarintType), t.uint64())
	case 3:
		b = append(b, strings.Repeat("\x0b", 20_000)...) // groups in groups
		return append(b, strings.Repeat("\x0c", 20_000)...)
	case 4:
		return append(b, t.next(), t.next(), t.next())
	case 5:
		return append(b, strings.Repeat("\x0a\xff\xff\x03", 3)...) // a length that is not there
	}
	return b
}

// maxDepth is how deep messages are made in messages.
const maxDepth = 8

func (t *tape) field(b []byte, f protoreflect.FieldDescriptor, depth int) []byte {
	tag := func(kind protowire.Type) []byte { return protowire.AppendTag(b, f.Number(), kind) }
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		var inner []byte
		if depth < maxDepth {
			inner = t.message(nil, f.Message(), depth+1)
		}
		return protowire.AppendBytes(tag(protowire.BytesType), inner)
	case protoreflect.StringKind, protoreflect.BytesKind:
		return protowire.AppendString(tag(protowire.BytesType), t.text(string(f.Name())))
	case protoreflect.DoubleKind:
		return protowire.AppendFixed64(tag(protowire.Fixed64Type), math.Float64bits(floats[t.of(len(floats))]))
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		return protowire.AppendFixed64(tag(protowire.Fixed64Type), t.number(f))
	case protoreflect.FloatKind, protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		return protowire.AppendFixed32(tag(protowire.Fixed32Type), uint32(t.number(f)))
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return protowire.AppendVarint(tag(protowire.VarintType), protowire.EncodeZigZag(int64(t.number(f))))
	default:
		return protowire.AppendVarint(tag(protowire.VarintType), t.number(f))
	}
}

func (t *tape) number(f protoreflect.FieldDescriptor) uint64 {
	c := t.next()
	if want := sane[string(f.Name())]; t.tame && want != nil {
		return want[int(c)%len(want)]
	}
	if t.tame {
		return uint64(c % 4)
	}
	if c < 250 {
		return numbers[int(c)%len(numbers)]
	}
	return t.uint64()
}

func (t *tape) text(name string) string {
	c := t.next()
	if want := fields[name]; want != nil && (c < 160 || t.tame) {
		return want[int(c)%len(want)]
	}
	if c < 240 {
		return known[t.of(len(known))]
	}
	n := min(int(c-230), len(t.left))
	s := string(t.left[:n])
	t.left = t.left[n:]
	return s
}
