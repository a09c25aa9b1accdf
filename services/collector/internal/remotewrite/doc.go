// Package remotewrite speaks Prometheus remote write to a receiver: 2.0, or 1.0
// where the receiver knows no better.
//
// Its one invariant: a request is called delivered only when an answer says so
// that only a receiver which understood it can have given. A receiver of 1.0
// alone may read a request of 2.0 as an empty one and answer 204, having stored
// nothing. So an answer to 2.0 counts when it has the headers that tell how much
// was written, which 2.0 demands; without them the same request is sent again as
// 1.0. Samples that arrive twice by this are the same samples.
package remotewrite
