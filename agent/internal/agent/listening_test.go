package agent

import (
	"net"
	"slices"
	"testing"
)

func TestListeningIsForOthersOnly(t *testing.T) {
	open, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	ports := listening()
	if !slices.Contains(ports, open.Addr().(*net.TCPAddr).Port) {
		t.Errorf("%v is not among %v", open.Addr(), ports)
	}
	if slices.Contains(ports, own.Addr().(*net.TCPAddr).Port) {
		t.Errorf("%v is among %v", own.Addr(), ports)
	}
}
