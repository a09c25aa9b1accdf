// Package siege attacks a registry and a collector, whole and with production code
// only: requests that no client would send, connections that no client would hold,
// and endpoints that lead where no producer is.
//
// Its invariant: while it goes on, a good client is served beside it, and what an
// attack costs is bounded and told by its test.
//
// Unlike in the simulation, time is real: what is attacked is how gRPC and HTTP are
// set up, on TCP. No test judges how long something takes.
package siege
