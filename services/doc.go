// Package services is the house of Rollcall: everything that runs lives in a
// room below it, and this page is the map.
//
// Its one invariant: the map names every room, and what a room imports follows
// the arrows. The package's test reads all imports of the module, those of its
// tests included, and fails on a room without a place, a place without a room,
// an arrow that points up, and a package without a comment.
//
//	services/                page      this map
//	  internal/                        what both services share
//	    assignment/          core      the words: ids, assignments, sets, digests, frames
//	    endpoint/            core      what a producer's URL may be, and which addresses may be dialled
//	    access/              core      who may do what: roles, identities, the tables of methods and routes
//	    authority/           core      certificates for development and tests
//	    wire/                adapter   the words to proto and back; refuses what is malformed
//	    auth/                adapter   asks who calls, lets in who may, tells what was changed
//	      authtest/          support   certificates for tests; walks through what a server serves
//	    process/             adapter   starting, serving and stopping a process within a bound
//	    scripttest/          support   what the scripts that test a command may say
//	  registry/              assembly  the registry, put together: Config, New, Run
//	    internal/
//	      roster/            core      who exists and who has whom: commands in, changes out
//	      placement/         core      which collector should have which producer
//	      lease/             core      who is struck off, which collectors are gone, and when no clock runs
//	      feed/              engine    each collector's current set, to any number of subscribers
//	      registrar/         engine    commands to the store, and the store's changes to the view
//	      leader/            engine    what one replica does for all: judges, hands off, evens out
//	      witness/           adapter   asks collectors how their producers answer
//	      store/             adapter   the roster on disk: revisions, compare-and-set, watch
//	        storetest/       support   the exam that every body of the store passes
//	        etcdtest/        support   clusters of etcd members that can be killed
//	      api/               adapter   the gRPC handlers; the one function from error to status
//	  collector/             assembly  a collector, put together: Config, New, Run
//	    internal/
//	      sample/            types     what a collection yields and a sink stores
//	      snapshot/          core      frames in, sealed sets out
//	      guard/             core      which removals pass, which are held, what releases them
//	      membership/        engine    the one owner of the accepted and the applied set
//	      schedule/          engine    running collections, one for each producer of the applied set
//	      deliver/           engine    what a queue holds, sent to a sink: order, retries, what is dropped
//	      follow/            adapter   one subscription at a time: dial, watch, back off, acknowledge
//	      directory/         adapter   claims a directory for one process; makes the names in it durable
//	      statefile/         adapter   the last sealed set on disk
//	      scrape/            adapter   one pull of one producer, over HTTP or gRPC
//	      sink/              adapter   where samples go: the embedded time series database
//	      queue/             adapter   samples on disk until the sinks have them
//	      remotewrite/       adapter   Prometheus remote write, to a receiver
//	      otlp/              adapter   OTLP metrics over gRPC, to a receiver
//	      settings/          adapter   the configuration file: relabeling, limits, credentials
//	      query/             adapter   Prometheus's query API over that database
//	      peers/             adapter   the stores of all collectors as one: asks the others, answers them
//	      api/               adapter   what a collector tells about itself, over gRPC
//	  producer/              adapter   public: keep a program registered as a producer, and answer collectors
//	  cmd/
//	    registry/            main      the registry's process
//	    collector/           main      a collector's process
//	    producer/            main      the sidecar: registers an endpoint that is there already
//	    rollcall/            main      the operator's command line
//	  simulation/            bench     the whole system in one bubble of fake time, under faults
//	  siege/                 bench     both services under attack: requests, connections, endpoints
//	deploy/
//	  alerts/                bench     the alert rules, and that they are sound
//	  internal/
//	    child/               adapter   the services as processes of this machine
//	    receiver/            adapter   takes remote write, or does not, and knows what came
//	  omicron/               main      the failure that it all is about, on real processes
//	  local/                 main      one registry and two collectors on this machine
//	  example/               main      producers that remember when they were pulled, for trials and tests
//	  bench/                 bench     measurements
//	  delivery/              bench     what is lost on the way to a receiver, beside the peers
//	  soak/                  bench     registries over etcd, of which one after another is killed
//
// # Arrows
//
// They point down: mains, assemblies, adapters, engines, cores, and at the
// bottom the words of assignment. A room of one service sees that service and
// what both share.
//
//   - A core holds rules and nothing else. It takes the time as an argument and
//     returns what happened; it opens no door (network, disk, log, metrics), and
//     beyond the standard library it sees cores and what its row in the test names.
//   - Types are held to the same, and carry foreign data types across the layers.
//   - An engine runs the rules: it owns goroutines and state, and reaches the
//     outside through interfaces of its own. One engine drives another only where
//     the test's table says so.
//   - An adapter speaks to one thing outside. Adapters do not import each other,
//     except wire, auth and process, and where the test's table says so.
//   - An assembly is where the rooms of one service meet, importable by tests.
//   - Support is imported by tests only.
//
// The code generated from proto/ is seen only by the rooms that name it in the
// test's table: those that stand at the wire or at the disk. What a test file
// may import beyond its room is told there, too.
package services
