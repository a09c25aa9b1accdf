// Package bench measures Rollcall beside its peers: the same load, the same
// machine, one run. Servers run in processes of their own.
//
// Its invariant: a figure of ours never stands alone; the peer's of the same run
// stands beside it.
package bench
