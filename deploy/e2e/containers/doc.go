// Package containers drives the pair as people run it: real containers, networks
// and volumes, by the commands docker and docker-compose, and does to them what
// happens to containers. Its tests have the build tag e2e.
//
// Its invariant: it judges by the samples that collectors stored, by what
// producers saw and by what clients were told; what a process says of itself is
// only checked to be right.
//
// Each test has a fleet of its own, of names that begin with rce2e-: networks for
// the store, for registries and collectors, for collectors and producers, and for
// producers and registries, so that one can be cut while the others stay.
// Whatever it made is removed when it ends; what a killed run left, when the next
// one begins. A test that failed leaves the logs of its containers in the directory
// that -logs names, and tells where.
//
// The judge reads the series up of every collector by itself. Each producer has a
// grid of instants; a point of it is
//
//   - missed when no collector has a sample there,
//   - failed when the only samples say that the producer did not answer; the next
//     point is overlaid when that took too long. One in a hundred may fail, of
//     a machine that is busy,
//   - twice when more than one has it,
//
// and a sample beside the grid has strayed. A test says which of these may be, in
// which window. Beside that, producers remember when they were pulled.
//
// What the tests need, the machine has or has not: docker, docker-compose, nft
// and nsenter, the images of make images. A test skips for want of one, and says
// so; with ROLLCALL_REQUIRE_ALL=1 it fails.
package containers
