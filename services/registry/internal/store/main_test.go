package store_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		panic(runChild(dir)) // it is to be killed
	}
	goleak.VerifyTestMain(m)
}
