// Package simulation runs whole registries and collectors, with production code
// only, in bubbles of fake time: real gRPC and real HTTP over connections in
// memory, hours in milliseconds.
//
// Its invariant: what must hold is judged by what the producers saw and what the
// collectors tell, never by the registry's own view.
//
// Beside the tests that tell one story each there are towns: 2 registries over one
// store, 3 collectors and 20 producers, in which a script is played, step by step,
// and judged by one journal after each. A script comes from a seed (TestSeeds), from
// testdata (TestStories) or from a failure (TestReplay). A seed fixes the commands,
// the faults and their times, and so does a script. Neither fixes how goroutines
// interleave, nor what is drawn at random in the code that is under test: a script
// that fails once need not fail each time, and TestReplay tells how often it does.
//
// What a town cannot do: stop a process's own clock. A frozen one is one that
// nothing reaches and nothing comes from. A dead producer that was struck off is held
// by its collector until that has failed to collect it for ten minutes, as it must be
// where the registry may be wrong; so the roll, not its collector, shows that it is
// gone.
//
// testdata/mutations has deliberate bugs, one a patch, each with the promise that it
// breaks and the test that must find it. TestMutations checks that they can still be
// applied; make mutate builds each and sees its test turn red.
package simulation
