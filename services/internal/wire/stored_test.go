package wire_test

import (
	"bytes"
	"errors"
	"testing"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func TestStoredRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := assignments().Draw(t, "assignment")
		stored := wire.EncodeStored(want)
		got, err := wire.DecodeStored(stored)
		if err != nil {
			t.Fatal(err)
		}
		if got.Version != assignment.VersionOf(stored) || got.Role != 0 {
			t.Fatalf("version %#x, role %d", got.Version, got.Role)
		}
		if !bytes.Equal(wire.EncodeStored(got), stored) {
			t.Fatal("the same assignment has other bytes")
		}
		if !got.SameWork(want) {
			t.Fatal("it asks for other work")
		}
		got.Version, got.Role = want.Version, want.Role
		checkSame(t, got, want)
	})
}

// Neither version nor role is a part of the stored bytes: a move to another
// collector or role leaves the version as it is.
func TestStoredIsWithoutVersionAndRole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := assignments().Draw(t, "assignment")
		b := *a
		b.Version, b.Role = a.Version+1, a.Role^1
		if !bytes.Equal(wire.EncodeStored(a), wire.EncodeStored(&b)) {
			t.Fatal("version or role shows")
		}
		b.Labels = append([]assignment.Label{}, a.Labels...)
		if !bytes.Equal(wire.EncodeStored(a), wire.EncodeStored(&b)) {
			t.Fatal("labels that are empty are not labels that are nil")
		}
	})
}

// Nobody promises that a new library or a new field leaves the bytes as they
// are; but who changes them should know: each producer's next registration then
// gives it another version, and its collector restarts its collection.
func TestStoredGolden(t *testing.T) {
	for permanent, want := range map[bool]assignment.Version{false: 0xfd198877f46b4be, true: 0xcf942caddfc870} {
		a := wholeAssignment()
		a.Permanent = permanent
		stored := wire.EncodeStored(a)
		if got := assignment.VersionOf(stored); got != want {
			t.Errorf("version %#x, want %#x of %x", got, want, stored)
		}
	}
	if got, want := assignment.VersionOf(wire.EncodeStored(&assignment.Assignment{ProducerID: "a"})), assignment.Version(0x62d9a688d0fc7af1); got != want {
		t.Errorf("version %#x of nearly nothing, want %#x", got, want)
	}
}

func TestStoredThatIsMalformed(t *testing.T) {
	noID, err := proto.Marshal(&registryv1.Assignment{Endpoint: "http://h"})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"empty": nil, "no id": noID, "cut off": {0x0a, 0x7f}} {
		if a, err := wire.DecodeStored(b); !errors.Is(err, wire.ErrMalformed) || a != nil {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
}

// What is called sound is read, and of the same producer; and what was written is
// called sound, or the check would be for nothing.
func TestSoundStored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := assignments().Draw(t, "assignment")
		stored := wire.EncodeStored(a)
		if !wire.SoundStored(a.ProducerID, stored) || wire.SoundStored(a.ProducerID+"x", stored) {
			t.Fatalf("%x of %q", stored, a.ProducerID)
		}
		spoilt := bytes.Clone(stored)
		for range rapid.IntRange(1, 3).Draw(t, "times") {
			spoilt[rapid.IntRange(0, len(spoilt)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		spoilt = append(spoilt, rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "more")...)
		checkSound(t, a.ProducerID, spoilt)
	})
}

func checkSound(t interface{ Fatalf(string, ...any) }, id assignment.ProducerID, stored []byte) {
	if !wire.SoundStored(id, stored) {
		return
	}
	if got, err := wire.DecodeStored(stored); err != nil || got.ProducerID != id {
		t.Fatalf("%x is called sound: %v", stored, err)
	}
}

func FuzzSoundStored(f *testing.F) {
	f.Add("p", wire.EncodeStored(wholeAssignment()))
	f.Add("a", []byte{0x0a, 1, 'a', 0x22, 2, 8, 1})
	f.Fuzz(func(t *testing.T, id string, stored []byte) {
		if _, err := assignment.ParseProducerID(id); err == nil {
			checkSound(t, assignment.ProducerID(id), stored)
		}
	})
}

func BenchmarkSoundStored(b *testing.B) {
	a := wholeAssignment()
	stored := wire.EncodeStored(a)
	b.Run("sound", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			wire.SoundStored(a.ProducerID, stored)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = wire.DecodeStored(stored)
		}
	})
}
