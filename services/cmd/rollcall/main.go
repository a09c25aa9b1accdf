// Command rollcall is the operator's command line: it shows producers and
// collectors, registers and deregisters producers, watches what a collector is
// told, asks a collector how it is doing, moves producers between collectors, and
// rebuilds a registry that lost its store.
//
// Its invariant: what it prints about a snapshot it has verified itself, from
// the frames and the rules of the protocol alone.
package main

import (
	"os"

	"github.com/alecthomas/kong"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

const description = `The command line of Rollcall.

  rollcall get producers
  rollcall register node-1 http://10.0.0.7:9100/metrics --interval 15s --label zone=a
  rollcall why node-1
  rollcall drain collector-1 --wait
  rollcall subscribe collector-1 --once

Every flag is also an environment variable, named behind it.

Exit codes: 0 done, 1 failed, 2 wrong usage.`

type cli struct {
	Get struct {
		Producers  getProducers  `cmd:"" help:"Show producers and their collectors."`
		Collectors getCollectors `cmd:"" help:"Show collectors and how they are doing."`
	} `cmd:"" help:"Show what the registry knows."`
	Describe struct {
		Producer  describeProducer  `cmd:"" help:"Show a producer: its collectors, its lease, what speaks against it."`
		Collector describeCollector `cmd:"" help:"Show a collector: its state, what it has, what it acknowledged."`
	} `cmd:"" help:"Show all that is known of one."`
	Why        why        `cmd:"" help:"Tell in words why a producer is where it is, and how long it stays on the roll."`
	Register   register   `cmd:"" help:"Register a producer, or change one."`
	Deregister deregister `cmd:"" help:"Take a producer off the roll; its collector stops at once."`
	Subscribe  subscribe  `cmd:"" help:"Watch what a collector is told, and verify every seal."`

	Drain     drain     `cmd:"" help:"Hand everything that a collector has to the others."`
	Undrain   undrain   `cmd:"" help:"Let a collector be given producers again."`
	Expunge   expunge   `cmd:"" help:"End a collector that is drained or gone."`
	Move      move      `cmd:"" help:"Hand a producer to a collector."`
	Rebalance rebalance `cmd:"" help:"Even out the load, or tell what that would take."`
	Expiry    expiry    `cmd:"" help:"Tell how those that are due to be struck off shall be."`
	Recover   recovery  `cmd:"" help:"Give a registry that lost its store what the collectors have kept."`

	Membership  showMembership  `cmd:"" help:"Ask a collector which set it holds and how its subscription is doing."`
	Collections showCollections `cmd:"" help:"Ask a collector what it collects and how that goes."`
	Sinks       showSinks       `cmd:"" help:"Ask a collector where samples go, how far behind that is, and what was dropped."`
	CollectNow  collectNow      `cmd:"" help:"Have a collector collect a producer at once."`
	Held        showHeld        `cmd:"" help:"Ask a collector, or all, whom they hold: absent from the set, still collected."`
	Release     release         `cmd:"" help:"Have a collector let go of those that it holds."`

	Store struct {
		Delete   deleteSeries   `cmd:"" help:"Delete series from a collector's store."`
		Snapshot createSnapshot `cmd:"" help:"Copy a collector's store on its disk, to be taken away as a backup."`
	} `cmd:"" help:"Look after the samples that a collector keeps."`

	CA struct {
		Init  caInit  `cmd:"" help:"Make an authority."`
		Issue caIssue `cmd:"" help:"Issue a certificate, for servers and clients."`
		Token caToken `cmd:"" help:"Make a random bearer token."`
	} `cmd:"" name:"ca" help:"Make certificates and tokens, for development and tests only."`

	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

func main() {
	os.Exit(process.Execute(&cli{}, "rollcall", description,
		kong.Bind(output{os.Stdout, os.Stderr}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "peer", Title: "Whom it asks:"},
			{Key: "tls", Title: "What it shows to them, and whom it trusts:"},
		})))
}
