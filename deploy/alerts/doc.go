// Package alerts has the alert rules for Prometheus, rollcall.yml.
//
// Its one invariant: the rules are ones that promtool takes, and each metric
// that they ask for is one that a collector has.
package alerts
