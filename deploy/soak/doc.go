// Package soak runs what a site would run, as real processes: three registries
// over an etcd of three members, two collectors, and producers. Under a bounded
// load it kills one registry or one member of etcd after the other, by SIGKILL.
//
// Its invariant: it judges by what clients were told and producers saw, never by
// what a process says of itself, but for whom collectors hold.
//
// What is checked, and why that:
//
//   - Registering, deregistering and getting one producer is linearizable, for
//     registrations that change something and for gets that name as min_revision
//     the highest revision that anybody was told before. Without that a get
//     answers from the replica's own view, and a registration that changes nothing
//     is a renewal, which is answered from there, too: neither promises more. What
//     failed may have happened at any time after it was asked for, or never.
//   - Revisions of one producer's writes grow in the order of the writes, and all
//     answers are of one epoch: the store never went back.
//   - A registration that was acknowledged, and that nobody took back, is told by
//     every replica at the end, as it was last acknowledged.
//   - A fleet that is never deregistered misses no collection, whoever is killed:
//     between two pulls of a producer there are never more than two intervals and
//     some lateness of the machine. It is collected to the end, by one collector
//     each, and at the end nobody is held.
//
// More tests do one thing each: all of etcd is away for a while; the store of
// a registry is lost and recovered from what its collectors have kept; it is set
// back to a backup that was saved while it ran; and it is moved to another etcd and
// back, with the standard tools.
package soak
