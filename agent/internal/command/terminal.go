package command

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// Size of a terminal, in characters and pixels.
type Size struct {
	Columns, Rows, Width, Height uint32
}

// Terminal is what pty-req asks for, RFC 4254 §6.2.
type Terminal struct {
	Name  string
	Size  Size
	Modes string
}

// ParseTerminal reads pty-req's payload.
func ParseTerminal(payload []byte) (*Terminal, error) {
	var request struct {
		Name                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if err := ssh.Unmarshal(payload, &request); err != nil {
		return nil, fmt.Errorf("read pty-req: %w", err)
	}
	size := Size{request.Columns, request.Rows, request.Width, request.Height}
	return &Terminal{Name: request.Name, Size: size, Modes: request.Modes}, nil
}

// ParseSize reads window-change's payload.
func ParseSize(payload []byte) (size Size, err error) {
	if err := ssh.Unmarshal(payload, &size); err != nil {
		return size, fmt.Errorf("read window-change: %w", err)
	}
	return size, nil
}

// openTerminal makes a pseudo-terminal: ours, and the command's.
func openTerminal(terminal *Terminal) (ours, theirs *os.File, err error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	}
	name := "/dev/pts/" + strconv.Itoa(number)
	slave := -1
	if err == nil {
		slave, err = unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		_ = unix.Close(master)
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	setModes(slave, terminal.Modes)
	resize(master, terminal.Size)
	return os.NewFile(uintptr(master), "/dev/ptmx"), os.NewFile(uintptr(slave), name), nil
}

func resize(fd int, size Size) {
	_ = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{
		Row: uint16(size.Rows), Col: uint16(size.Columns), Xpixel: uint16(size.Width), Ypixel: uint16(size.Height),
	})
}

// controlCharacters are opcode → index in c_cc, RFC 4254 §8.
var controlCharacters = map[byte]int{
	1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
	8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT,
}

type flag struct {
	word func(*unix.Termios) *uint32
	bit  uint32
}

func in(t *unix.Termios) *uint32    { return &t.Iflag }
func local(t *unix.Termios) *uint32 { return &t.Lflag }
func out(t *unix.Termios) *uint32   { return &t.Oflag }

// modeFlags are the opcodes that are one bit each, RFC 4254 §8.
var modeFlags = map[byte]flag{
	30: {in, unix.IGNPAR}, 31: {in, unix.PARMRK}, 32: {in, unix.INPCK}, 33: {in, unix.ISTRIP}, 34: {in, unix.INLCR},
	35: {in, unix.IGNCR}, 36: {in, unix.ICRNL}, 37: {in, unix.IUCLC}, 38: {in, unix.IXON}, 39: {in, unix.IXANY},
	40: {in, unix.IXOFF}, 41: {in, unix.IMAXBEL}, 42: {in, unix.IUTF8},
	50: {local, unix.ISIG}, 51: {local, unix.ICANON}, 52: {local, unix.XCASE}, 53: {local, unix.ECHO},
	54: {local, unix.ECHOE}, 55: {local, unix.ECHOK}, 56: {local, unix.ECHONL}, 57: {local, unix.NOFLSH},
	58: {local, unix.TOSTOP}, 59: {local, unix.IEXTEN}, 60: {local, unix.ECHOCTL}, 61: {local, unix.ECHOKE},
	62: {local, unix.PENDIN},
	70: {out, unix.OPOST}, 71: {out, unix.OLCUC}, 72: {out, unix.ONLCR}, 73: {out, unix.OCRNL},
	74: {out, unix.ONOCR}, 75: {out, unix.ONLRET},
}

// setModes gives the terminal the modes of the client's own, as far as known.
func setModes(fd int, modes string) {
	termios, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return
	}
	for len(modes) >= 5 && modes[0] != 0 {
		value := binary.BigEndian.Uint32([]byte(modes[1:5]))
		if index, ok := controlCharacters[modes[0]]; ok {
			if value == 255 { // "none" in RFC 4254, 0 in Linux
				value = 0
			}
			termios.Cc[index] = byte(value)
		} else if flag, ok := modeFlags[modes[0]]; ok {
			word := flag.word(termios)
			*word &^= flag.bit
			if value != 0 {
				*word |= flag.bit
			}
		}
		modes = modes[5:]
	}
	_ = unix.IoctlSetTermios(fd, unix.TCSETS, termios)
}
