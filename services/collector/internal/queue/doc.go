// Package queue keeps samples on disk until all sinks have them: one log for
// all of them, and a persisted position for each.
//
// Its invariant: a batch that Write has taken is given to every reader, unless
// it is counted, for that reader, as dropped. It may be given twice after a
// crash.
//
// # What happens when
//
//   - A batch is in the file of a segment before Write returns, and synced at most
//     Config.SyncInterval later. A process that is killed loses nothing that Write
//     has returned for; a machine that dies loses at most what was not synced, and
//     Status tells since when that is. Positions follow within milliseconds:
//     what is read again is less than what was committed in that time.
//   - When the disk refuses a write, or does not return from one within
//     Config.StallAfter, the segment ends at its last confirmed byte and batches go
//     to segments in memory, which readers get as well. Every second the disk is
//     tried again; when it works, what is in memory is written to it first. What is
//     in memory is lost with the process.
//   - When a sync fails, the segment takes no more, and is not synced again: what
//     it has is given to readers, but counts as not synced until they have it.
//   - A directory that cannot be opened at first is taken up when it can: its
//     sinks get what is in it, after what came in the meantime.
//   - When the disk or the memory is full, the oldest segment is dropped, and what
//     it had is counted for each sink that had not read it.
//   - What cannot be read costs the rest of its segment, for the readers that have
//     not passed it, and is counted by the frames behind it; only where a frame
//     itself is damaged, in a segment of an earlier process, what is behind it
//     is not counted. A record that was cut off by the death of its process is no
//     loss, and counted apart.
//
// Four goroutines work at the disk, so that one that hangs holds up one thing: the
// writer, the syncer, the keeper of positions, and the cleaner.
//
// # Files
//
// A segment is a file %016x.segment, by its number. Numbers rise, with gaps;
// each start of a process begins a new one. It is self-contained: strings,
// metadata and series are defined in it where they are first used. Integers are
// little-endian; a varint is that of encoding/binary, zigzag where it has a sign.
//
//	segment = header record*
//	header  = "rollqueu" version:u32 number:u64 session:i64 begun:i64 crc:u32
//	record  = length:u32 samples:u32 crc:u32 crcOfTheseTwelve:u32 payload[length]
//	payload = source:u64 written:varint base:varint
//	          definitionBytes:uvarint definition*
//	          runs:uvarint (gap:varint count:uvarint)*
//	          flags:u8 [times] [starts] integers:bitmap value* [extras]
//
// All crc are CRC-32C. The session is when the process began, in nanoseconds;
// begun and written are in milliseconds, base is relative to written and the
// time of most samples of the record. Segments that a process has written out
// of its memory look like all others.
//
//	definition = labels:uvarint (name:symbol value:symbol)* meta
//	symbol     = 0 length:uvarint bytes   a new one, which gets the next number
//	           | number:uvarint           from 1
//	meta       = 0                        none
//	           | 1 type:symbol unit:symbol help:symbol   a new one
//	           | 2+number:uvarint         from 0
//
// Series are numbered from 0 in the order of their definitions. The series of a
// record are runs of consecutive numbers; gap is from the end of the run before.
// A bit of integers, the lowest first, tells whether a value is a varint or the
// eight bytes of a float.
//
//	times  = count:uvarint (skip:uvarint difference:varint)*   to base
//	starts = (run<<1|told:uvarint [difference:varint])*        to base
//	extras = count:uvarint (skip:uvarint kind:u8 [histogram] [exemplars])*
//
// A position is a file name.position of two slots, written in turn; the valid
// one with the higher sequence counts.
//
//	slot = "rollposi" sequence:u64 segment:u64 offset:i64 crc:u32, at 0 and 512
package queue
