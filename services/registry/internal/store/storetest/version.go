package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

const prefix = "/rollcall/v1/"

// unknownFieldsAreKept writes records as a newer version would, with one more
// field, and has this version change them.
func unknownFieldsAreKept(t *testing.T, server Server) {
	p := server.Open(t)
	extra := protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), "of a newer version")
	extra = protowire.AppendVarint(protowire.AppendTag(extra, 2000, protowire.VarintType), 7)
	known := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "known")
	server.Put(t, prefix+"producers/a/b", append(extra, known...))
	server.Put(t, prefix+"epoch", append(known, extra...))
	all, _ := load(t, p)
	was, ok := all[roster.ProducerKey("a/b")].Record.(*roster.Producer)
	if !ok {
		t.Fatalf("loaded %v", all)
	}
	want := producer("a/b", "known")
	want.Extra = extra
	equal(t, "read", was, want)
	equal(t, "epoch", all[roster.Key{Kind: roster.KindEpoch}].Record,
		roster.Record(&roster.Epoch{Epoch: "known", Extra: extra}))
	changed := *was
	changed.Collector = "c1"
	committed(t, p, put(&changed, all[roster.ProducerKey("a/b")].Revision))
	want.Collector = "c1"
	all, _ = load(t, p)
	equal(t, "written", all[roster.ProducerKey("a/b")].Record, roster.Record(want))
}

// unknownKeysAreIgnored has keys of other versions written under the prefix.
func unknownKeysAreIgnored(t *testing.T, server Server) {
	p := server.Open(t)
	_, begin := load(t, p)
	w := watch(t, p, begin)
	keys := []string{"omens/a", "leader/1", "expiry/1", "epochs", "epoch/1", "producers", "future/kind/a", "x"}
	for _, key := range keys {
		server.Put(t, prefix+key, []byte{0xff})
	}
	server.Put(t, strings.TrimSuffix(prefix, "/")+"0", []byte{0xff})
	server.Put(t, "/rollcall/v2/producers/a", []byte{0xff})
	end := committed(t, p, put(producer("a", "1"), 0))
	all, revision := load(t, p)
	if len(all) != 1 || revision != end {
		t.Errorf("loaded %v at revision %d", all, revision)
	}
	batches := w.until(end)
	checkOrder(t, batches, begin)
	empty := 0
	for _, batch := range batches {
		if len(batch.Events) == 0 {
			empty++
		}
	}
	if empty < len(keys) {
		t.Errorf("%d of %d revisions without records were brought", empty, len(keys))
	}
}

// undecodableRefuses puts what cannot be read; nothing may be given out as if
// it were not there.
func undecodableRefuses(t *testing.T, server Server) {
	p := server.Open(t)
	good := committed(t, p, put(producer("good", "1"), 0))
	text := func(number protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), s)
	}
	expect := good
	for i, bad := range []struct {
		key   string
		value []byte
	}{
		{"producers/a", []byte{0xff}},
		{"producers/b", nil},
		{"producers/c", append(text(1, "x"), text(3, "not a collector")...)},
		{"producers/d", append(text(1, "x"), text(2, "not an instance")...)},
		{"producers/e", append(text(1, "x"), text(6, "\x08\xff\xff\xff\xff\xff\xff\xff\x7f")...)},
		{"producers/", text(1, "x")},
		{"producers//a", text(1, "x")},
		{"producers/" + strings.Repeat("x", 200), text(1, "x")},
		{"collectors/a/b", nil},
		{"collectors/a", text(4, "\xff")},
		{"sessions/a", text(2, "not an instance")},
		{"acks/a", text(8, "not a producer")},
		{"removed/a", text(3, "a/b")},
		{"epoch", nil},
	} {
		key := prefix + bad.key
		w := watch(t, p, expect)
		server.Put(t, key, bad.value)
		named := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, registrar.ErrUnreadable) || !strings.Contains(err.Error(), fmt.Sprintf("%q", key)) {
				t.Errorf("%d: %s of %q gave %v", i, what, key, err)
			}
		}
		named("watch", w.err())
		_, err := p.Load(limited(t), func(roster.Found) error { return nil })
		named("load", err)
		batches, _ := w.so()
		for _, batch := range batches {
			if len(batch.Events) > 0 || batch.Revision > expect {
				t.Errorf("%d: a watch brought %+v of %q", i, batch, key)
			}
		}
		if bad.key == "producers/a" {
			_, err := p.Commit(limited(t), []roster.Txn{{put(producer("a", "1"), 0)}})
			named("commit", err)
		}
		server.Delete(t, key)
		_, expect = load(t, p)
	}
}
