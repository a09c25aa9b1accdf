//go:build !linux

package sink

// look sees nothing here: a full file system is noticed when a write fails.
func (r *room) look() error { return nil }
