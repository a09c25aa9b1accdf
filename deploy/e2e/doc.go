// Package e2e sends to real receivers of other projects and looks at what they
// got. It is a module of its own, so that the product's need not know what they
// need.
//
// The package containers below it does to real containers what happens to them,
// with a small fleet that is collected every second, and looks at what was stored:
//
//	TestRegistryKilled       P1 P2 P9  kill -9 of the only registry while it takes registrations
//	TestCollectorKilled      P3 P10    kill -9 of a collector while no registry runs
//	TestRegistryPaused       P2 P5     the registry stands still for 35 s, its connections stay open
//	TestCollectorPaused      P6        a collector stands still until its producers are handed off, and comes back
//	TestPartition            P2 P5 P8  no collector reaches any of three registries, for 2 minutes
//	TestLoss                 P1 P2 P7  3 of 10 packets between collectors and registry are lost
//	TestProxy                P1 P2 P7  what the registry says comes late, is cut in the middle, or stops there
//	TestRegistryStoreFull    P2 P5 P11 the registry's store is at its quota
//	TestRegistryVolumeFull   P2 P9 P11 the disk under it is full
//	TestCollectorVolumeFull  P10 P11   a collector's disk is full, and has room again
//	TestStoreLost            P4 P5     the registry's volume is deleted, and begun anew
//	TestRollingRestart       P2 P6     three registries and three collectors, one after the other
//	TestUpgrade              P2        the release before to this one, registry or collectors first
//	TestRunbook              P2 P4 P8  the commands of deploy/RUNBOOK.md, as they stand
//	TestMeasure, TestSidecarIdle       sizes, time to ready, memory and processor time of the idle
//
// make e2e runs all of it; make soak has a partition of ten minutes, five minutes
// of loss and ten kills of each.
package e2e
