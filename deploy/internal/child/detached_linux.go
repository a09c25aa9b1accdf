package child

import "syscall"

// detached keeps a terminal's Ctrl-C from the child, which is this process's to
// stop, and has the kernel stop the child should this process be killed.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
