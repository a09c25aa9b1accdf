package sink

import (
	"fmt"
	"syscall"
)

// look asks the file system.
func (r *room) look() error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(r.dir, &fs); err != nil {
		return fmt.Errorf("look at the file system: %w", err)
	}
	const readOnly = 1 // ST_RDONLY
	if fs.Flags&readOnly != 0 {
		return fmt.Errorf("the file system: %w", syscall.EROFS)
	}
	reserve := r.reserve
	if reserve == 0 {
		reserve = min(DefaultReserveBytes, int64(fs.Blocks)*fs.Bsize/100)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < reserve {
		return fmt.Errorf("%d bytes are free, of which %d are kept: %w", free, reserve, syscall.ENOSPC)
	}
	return nil
}
