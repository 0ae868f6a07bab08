package command

import (
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children tells the commands that were started here, which have somebody
// waiting, from orphans that the kernel gave to the agent as PID 1.
var children = struct {
	sync.Mutex
	ours  map[int]bool
	ended chan struct{}
}{ours: map[int]bool{}, ended: make(chan struct{}, 1)}

// start starts a command. The lock is held until its pid is known: a child that
// dies at once must not be reaped by Reap.
func start(cmd *exec.Cmd) error {
	children.Lock()
	defer children.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	children.ours[cmd.Process.Pid] = true
	return nil
}

// wait waits for a command that start started.
func wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	children.Lock()
	delete(children.ours, cmd.Process.Pid)
	children.Unlock()
	select {
	case children.ended <- struct{}{}:
	default:
	}
	return err
}

// Reap takes the exit of every orphan, for as long as the agent runs. Nobody
// else would: without a pause container's process in front the agent is PID 1.
func Reap() {
	dead := make(chan os.Signal, 1)
	signal.Notify(dead, syscall.SIGCHLD)
	for {
		select {
		case <-dead:
		case <-children.ended:
		}
		reapOrphans()
	}
}

func reapOrphans() {
	children.Lock()
	defer children.Unlock()
	for {
		// Look without taking; where the first one is ours, its own wait takes it
		// and wakes us to look behind it.
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		pid := exitedPID(&info)
		if err != nil || pid == 0 || children.ours[pid] {
			return
		}
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}
