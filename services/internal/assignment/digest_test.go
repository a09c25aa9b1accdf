package assignment_test

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"pgregory.net/rapid"
)

// XXH64 with seed 0, written down from its specification, so that the digest
// is pinned by something else than the library that computes it.
const (
	prime1 uint64 = 0x9E3779B185EBCA87
	prime2 uint64 = 0xC2B2AE3D27D4EB4F
	prime3 uint64 = 0x165667B19E3779F9
	prime4 uint64 = 0x85EBCA77C2B2AE63
	prime5 uint64 = 0x27D4EB2F165667C5
)

func xxh64(b []byte) uint64 {
	h, length := prime5, uint64(len(b))
	if len(b) >= 32 {
		lane := [4]uint64{prime1, prime2, 0, 0}
		lane[0] += prime2
		lane[3] -= prime1
		for ; len(b) >= 32; b = b[32:] {
			for i := range lane {
				lane[i] = xxhRound(lane[i], binary.LittleEndian.Uint64(b[8*i:]))
			}
		}
		h = bits.RotateLeft64(lane[0], 1) + bits.RotateLeft64(lane[1], 7) +
			bits.RotateLeft64(lane[2], 12) + bits.RotateLeft64(lane[3], 18)
		for _, l := range lane {
			h = (h^xxhRound(0, l))*prime1 + prime4
		}
	}
	h += length
	for ; len(b) >= 8; b = b[8:] {
		h ^= xxhRound(0, binary.LittleEndian.Uint64(b))
		h = bits.RotateLeft64(h, 27)*prime1 + prime4
	}
	if len(b) >= 4 {
		h ^= uint64(binary.LittleEndian.Uint32(b)) * prime1
		h = bits.RotateLeft64(h, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		h ^= uint64(c) * prime5
		h = bits.RotateLeft64(h, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

func xxhRound(lane, input uint64) uint64 {
	return bits.RotateLeft64(lane+input*prime2, 31) * prime1
}

// memberHash spells out the definition of hash(assignment) in the protocol.
func memberHash(id string, version uint64, role uint8) assignment.Hash {
	var b []byte
	b = append(b, id...)
	b = append(b, 0)
	for shift := 56; shift >= 0; shift -= 8 {
		b = append(b, byte(version>>shift))
	}
	b = append(b, role)
	return assignment.Hash(xxh64(b))
}

func TestXXH64Specification(t *testing.T) {
	for input, want := range map[string]uint64{
		"":    0xEF46DB3751D8E999,
		"a":   0xD24EC4F1A98C6E5B,
		"abc": 0x44BC2CF5AD770999,
		"Nobody inspects the spammish repetition": 0xFBCEA83C8A378BF1,
	} {
		if got := xxh64([]byte(input)); got != want {
			t.Errorf("xxh64(%q) = %#x, want %#x", input, got, want)
		}
	}
}

// Whoever writes a client checks it with these.
func TestHashOfGolden(t *testing.T) {
	for _, tc := range []struct {
		id      string
		version uint64
		role    uint8
		want    assignment.Hash
	}{
		{"a", 0, 0, 0xefe59fbf1280f451},
		{"a", 0, 1, 0xf60eeeeb36abf0d3},
		{"a", 1, 1, 0x77a0573da1aa2a7c},
		{"a", 1 << 56, 1, 0x5b9776eefbbec024},
		{"host-1.example:9100", 0x0123456789abcdef, 1, 0x5286b809ddabcf9a},
		{"job/host-1.example:9100", math.MaxUint64, 127, 0xb46ef9570a7f4a27},
		{strings.Repeat("x", 128), 42, 1, 0x90458feaef67251a},
	} {
		got := assignment.HashOf(assignment.ProducerID(tc.id), assignment.Version(tc.version), assignment.Role(tc.role))
		if got != tc.want {
			t.Errorf("HashOf(%q, %#x, %d) = %#x, want %#x", tc.id, tc.version, tc.role, got, tc.want)
		}
	}
}

func TestHashOfIsAsTheProtocolSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := producerIDs().Draw(t, "id")
		version := rapid.Uint64().Draw(t, "version")
		role := rapid.Uint8().Draw(t, "role")
		want := memberHash(string(id), version, role)
		if got := assignment.HashOf(id, assignment.Version(version), assignment.Role(role)); got != want {
			t.Fatalf("HashOf = %#x, want %#x", got, want)
		}
		a := &assignment.Assignment{ProducerID: id, Version: assignment.Version(version), Role: assignment.Role(role)}
		if a.Hash() != want || a.ID() != id {
			t.Fatalf("the assignment's own: %q %#x, want %#x", a.ID(), a.Hash(), want)
		}
	})
}

func TestVersionOfIsXXH64(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stored := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "stored")
		if got, want := assignment.VersionOf(stored), assignment.Version(xxh64(stored)); got != want {
			t.Fatalf("VersionOf = %#x, want %#x", got, want)
		}
	})
}

func TestBucketIsTheTopBits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := producerIDs().Draw(t, "id")
		hash := xxh64([]byte(id))
		for bucketBits := range uint8(assignment.MaxBucketBits + 1) {
			// As text, most significant bit first, the bucket's number is what
			// the hash begins with.
			var want uint32
			for i := range bucketBits {
				want = want<<1 | uint32(hash>>(63-i)&1)
			}
			if got := assignment.Bucket(id, bucketBits); got != want {
				t.Fatalf("Bucket(%q, %d) = %d, want %d", id, bucketBits, got, want)
			}
		}
	})
}

func TestBucketGolden(t *testing.T) {
	// XXH64("a") = d24e...: 1101 0010 0100 1110
	for bucketBits, want := range []uint32{0, 1, 3, 6, 13, 26, 52, 105, 210, 420, 841, 1682, 3364, 6729, 13459, 26919, 53838} {
		if got := assignment.Bucket("a", uint8(bucketBits)); got != want {
			t.Errorf("Bucket(a, %d) = %d, want %d", bucketBits, got, want)
		}
	}
}

// wantBucketBits is clamp(ceil(log2(count/64)), 0, 16) without a logarithm: the
// least number of bits, up to 16, that gives every 64 members a bucket.
func wantBucketBits(count int) uint8 {
	for b := range uint8(16) {
		if count <= 64<<b {
			return b
		}
	}
	return 16
}

func TestBucketBits(t *testing.T) {
	for count, want := range map[int]uint8{
		math.MinInt: 0, -1: 0, 0: 0, 1: 0, 63: 0, 64: 0,
		65: 1, 127: 1, 128: 1, 129: 2, 256: 2, 257: 3, 1000: 4, 1024: 4, 1025: 5,
		100_000: 11, 1 << 21: 15, 1<<21 + 1: 16, 1 << 22: 16, 1<<22 + 1: 16, 1 << 23: 16,
		math.MaxInt32: 16, math.MaxInt - 63: 16, math.MaxInt - 62: 16, math.MaxInt: 16,
	} {
		if got := assignment.BucketBits(count); got != want || wantBucketBits(count) != want {
			t.Errorf("BucketBits(%d) = %d, want %d (by definition %d)", count, got, want, wantBucketBits(count))
		}
	}
	for b := range 20 {
		for off := -2; off <= 2; off++ {
			if count := 64<<b + off; assignment.BucketBits(count) != wantBucketBits(count) {
				t.Errorf("BucketBits(%d) = %d, want %d", count, assignment.BucketBits(count), wantBucketBits(count))
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.Int().Draw(t, "count")
		if got, want := assignment.BucketBits(count), wantBucketBits(count); got != want {
			t.Fatalf("BucketBits(%d) = %d, want %d", count, got, want)
		}
	})
}
