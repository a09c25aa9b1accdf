// Package deliver brings what is in a log to where it belongs: it reads records,
// relabels their series, makes requests of them, and sends these until they are
// taken or refused for good.
//
// Its invariant: a record is committed only when each of its samples has been
// taken, or refused and counted with the reason. Requests with samples of one
// producer are sent one after another, in the order in which they were written.
//
// # Order and concurrency
//
// Records go to one of 64 lanes by their source. A lane is in at most one
// request at a time, whether that is being sent or waits to be sent again, and
// so its order holds whatever else happens. How many requests may be at work is
// settled by what the receiver does: it begins with one, grows with every good
// answer as long as full requests wait, is halved when the receiver asks for
// less or does not answer in time, and then grows by one a second. Lane l
// belongs to share l modulo that number, so that as many full requests can be
// made as may be at work.
//
// # A receiver that does not take samples
//
// A request that may be delivered later is sent again, forever: what bounds it
// is the log, which drops its oldest part and counts it. The wait before the
// n-th try is random between 0 and MinBackoff * 2^(n-1), at most MaxBackoff, and
// not shorter than what the receiver asks for (at most ten minutes). Where the
// receiver asks for time, nothing at all is sent to it before.
//
// When it is gone, one request at a time is tried, each time another one. The
// first answer lets all go on at once: full speed is back within a round trip
// of the first try that meets a receiver. After it is back that is at the latest
// MaxBackoff away, on average half the wait of that time, and a try that hangs
// ends after SendTimeout.
//
// One request that the receiver answers with an error of its own (500), while it
// takes others, does not hold these up for ever: when the window is full of what
// waits behind it, and it has failed twenty times in a row with others taken in
// between, it is cut down to the record that is at fault, and that one is dropped
// and counted. With the default backoff that takes minutes. A receiver that
// answers everything so costs nothing.
//
// # A request that is refused
//
// A request that is rejected as a whole is sent again in halves, cut between
// records, until what is rejected is one record: one producer's samples do not
// cost another's. What is sent again for that is at most three times what is
// taken; beyond it whole requests are dropped. A receiver that has kept part of what it rejected
// gets that part twice.
//
// # The end
//
// Requests settle in another order than the log's, and only what is settled up to
// a place is committed. So before Run returns it sends, if the receiver takes it,
// what lies in the log before something that was sent. After a stop nothing is
// sent twice then; after a kill, at most a window is.
//
// # Bounds
//
// What has been read and is not committed is at most WindowSamples and one
// record. When that is full the log is not read, and nothing else waits.
package deliver
