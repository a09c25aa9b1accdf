//go:build unix && !linux

package child

import "syscall"

// detached keeps a terminal's Ctrl-C from the child, which is this process's to
// stop. Should this process be killed, its children live on.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
