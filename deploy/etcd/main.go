// Command etcd is etcd itself, at the version that the registry embeds, for the
// tests of deploy/ that kill its members. Its tools, etcdctl and etcdutl, are
// named in go.mod: they back up and restore the registry's store.
//
// Its invariant: nothing is added to them. It is a module of its own, so that the
// product's has nothing to do with what only the whole server needs.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
