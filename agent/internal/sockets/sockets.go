// Package sockets reads which TCP ports are listened on, and by whom.
package sockets

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listenState is TCP_LISTEN in the kernel's tables.
const listenState = "0A"

// Ports gives the TCP ports that the pod's processes listen on, for others than
// themselves: a Service does not lead to a loopback address.
func Ports() []int {
	ports := []int{}
	for _, socket := range listening() {
		ports = append(ports, socket.port)
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

type socket struct {
	port int
	// link is what a descriptor's entry in /proc leads to.
	link string
}

func listening() []socket {
	var sockets []socket
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		file, err := os.Open(table)
		if err != nil {
			continue // that family is off
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			sockets = append(sockets, listeningIn(lines.Text())...)
		}
		_ = file.Close()
	}
	return sockets
}

// listeningIn reads one line of proc_net_tcp(5).
func listeningIn(line string) []socket {
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != listenState {
		return nil
	}
	address, text, ok := strings.Cut(fields[1], ":")
	// 127/8 in the kernel's byte order, and ::1.
	if !ok || len(address) == 8 && strings.HasSuffix(address, "7F") || address == "00000000000000000000000001000000" {
		return nil
	}
	port, err := strconv.ParseUint(text, 16, 16)
	if err != nil {
		return nil
	}
	return []socket{{int(port), "socket:[" + fields[9] + "]"}}
}

// Shared is a listening socket of other processes that this one has, too: it stays when
// they close theirs, and nobody who knocks meanwhile is refused. It must not be accepted
// from while they have it: what comes is theirs.
type Shared struct {
	file *os.File
	link string
	// entries are the others' descriptors, in /proc.
	entries []string
}

// Share gives the sockets that others listen on at a port. It has none where the kernel
// does not let it: the process is another user's, or the container runtime's seccomp
// profile has no pidfd_getfd (that of RuntimeDefault).
func Share(port int) []Shared {
	links := map[string]*Shared{}
	for _, socket := range listening() {
		if socket.port == port {
			links[socket.link] = &Shared{link: socket.link}
		}
	}
	if len(links) == 0 {
		return nil
	}
	own := fmt.Sprintf("/proc/%d/", os.Getpid())
	entries, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, entry := range entries {
		if strings.HasPrefix(entry, own) {
			continue
		}
		link, err := os.Readlink(entry)
		if shared := links[link]; err == nil && shared != nil {
			shared.entries = append(shared.entries, entry)
		}
	}
	var sockets []Shared
	for _, shared := range links {
		if shared.open() {
			sockets = append(sockets, *shared)
		}
	}
	return sockets
}

func (s *Shared) open() bool {
	for _, entry := range s.entries {
		parts := strings.Split(entry, "/")
		pid, _ := strconv.Atoi(parts[2])
		descriptor, _ := strconv.Atoi(parts[4])
		process, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		copied, err := unix.PidfdGetfd(process, descriptor, 0)
		_ = unix.Close(process)
		if err == nil {
			s.file = os.NewFile(uintptr(copied), s.link)
			return true
		}
	}
	return false
}

// IsOurs tells whether nobody else has the socket any more.
func (s *Shared) IsOurs() bool {
	s.entries = slices.DeleteFunc(s.entries, func(entry string) bool {
		link, err := os.Readlink(entry)
		return err != nil || link != s.link
	})
	return len(s.entries) == 0
}

// Listener is for what comes to the socket from now on, and what waits there.
func (s *Shared) Listener() (net.Listener, error) {
	return net.FileListener(s.file)
}

// Close leaves the socket to the others.
func (s *Shared) Close() {
	_ = s.file.Close()
}
