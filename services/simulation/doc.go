// Package simulation runs whole registries and collectors, with production code
// only, in bubbles of fake time: real gRPC and real HTTP over connections in
// memory, hours in milliseconds.
//
// Its invariant: what must hold is judged by what the producers saw and what the
// collectors tell, never by the registry's own view.
package simulation
