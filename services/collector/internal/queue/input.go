package queue

import (
	"encoding/binary"
	"math"
)

// An input is what is left of some bytes. Once it is bad it stays so, and all
// that it gives is zero.
type input struct {
	b   []byte
	bad bool
}

func (in *input) uvarint() uint64 {
	n, size := binary.Uvarint(in.b)
	if size <= 0 || in.bad {
		in.bad = true
		return 0
	}
	in.b = in.b[size:]
	return n
}

func (in *input) varint() int64 {
	n, size := binary.Varint(in.b)
	if size <= 0 || in.bad {
		in.bad = true
		return 0
	}
	in.b = in.b[size:]
	return n
}

// upTo is a number of at most limit.
func (in *input) upTo(limit int) int {
	n := in.uvarint()
	if limit < 0 || n > uint64(limit) {
		in.bad = true
		return 0
	}
	return int(n)
}

// count is how many things follow, of which each takes at least so many bytes.
func (in *input) count(size int) int {
	return in.upTo(len(in.b) / size)
}

func (in *input) int32() int32 {
	n := in.varint()
	if n != int64(int32(n)) {
		in.bad = true
		return 0
	}
	return int32(n)
}

func (in *input) uint32() uint32 {
	n := in.uvarint()
	if n > math.MaxUint32 {
		in.bad = true
		return 0
	}
	return uint32(n)
}

func (in *input) bytes(n uint64) []byte {
	if in.bad || n > uint64(len(in.b)) {
		in.bad = true
		return nil
	}
	b := in.b[:n]
	in.b = in.b[n:]
	return b
}

func (in *input) byte() byte {
	if b := in.bytes(1); !in.bad {
		return b[0]
	}
	return 0
}

func (in *input) uint64() uint64 {
	if b := in.bytes(8); !in.bad {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (in *input) float() float64 { return math.Float64frombits(in.uint64()) }

func (in *input) string() string { return string(in.bytes(in.uvarint())) }

func (in *input) floats() []float64 {
	n := in.count(8)
	if n == 0 {
		return nil
	}
	all := make([]float64, n)
	for i := range all {
		all[i] = in.float()
	}
	return all
}

func (in *input) integers() []int64 {
	n := in.count(1)
	if n == 0 {
		return nil
	}
	all := make([]int64, n)
	for i := range all {
		all[i] = in.varint()
	}
	return all
}
