// Package bench measures Rollcall beside its peers: the same load, the same
// machine, one run. Servers run in processes of their own.
//
// Its invariant: a figure of ours never stands alone; of the same run, the
// peer's stands beside it, or our own without what is to be told of.
package bench
