package command

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// exitedPID is si_pid, which golang.org/x/sys/unix does not name. After three
// ints the union begins, aligned to 8 bytes on 64-bit Linux (asm-generic/siginfo.h).
func exitedPID(info *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 16)))
}
