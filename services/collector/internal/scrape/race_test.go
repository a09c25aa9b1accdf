//go:build race

package scrape_test

const raceDetector = true
