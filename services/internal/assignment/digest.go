package assignment

import (
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

type (
	// A Hash is one member's part of a digest.
	Hash uint64

	// A Digest is the sum of the hashes of the members of a set or bucket,
	// modulo 2^64: the order does not matter, and one member can be taken out
	// or put in.
	Digest uint64
)

// MaxBucketBits bounds the number of buckets of a set to 65,536.
const MaxBucketBits = 16

// bucketFill is how many members a bucket holds about.
const bucketFill = 64

// HashOf is XXH64, seed 0, of the id's bytes, one zero byte, the version as
// eight bytes big-endian, and the role as one byte.
func HashOf(id ProducerID, version Version, role Role) Hash {
	var buf [maxID + 10]byte
	b := append(buf[:0], id...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(version))
	return Hash(xxhash.Sum64(append(b, byte(role))))
}

// VersionOf is the version of an assignment with these stored bytes.
func VersionOf(stored []byte) Version { return Version(xxhash.Sum64(stored)) }

// Bucket is the number of the bucket of an id when the top bucketBits bits of
// XXH64(id) number the buckets.
func Bucket(id ProducerID, bucketBits uint8) uint32 {
	if bucketBits == 0 {
		return 0
	}
	return uint32(xxhash.Sum64String(string(id)) >> (64 - bucketBits))
}

// BucketBits is the number of bits that gives buckets of about 64 members:
// clamp(ceil(log2(count / 64)), 0, 16).
func BucketBits(count int) uint8 {
	if count <= bucketFill {
		return 0
	}
	full := (count + bucketFill - 1) / bucketFill
	return uint8(min(bits.Len(uint(full-1)), MaxBucketBits))
}
