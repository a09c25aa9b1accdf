//go:build race

package main

// buildFlags build what the tests run as the tests themselves are built.
var buildFlags = []string{"-race"}
