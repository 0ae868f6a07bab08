package tunnel

import (
	"bytes"
	"strings"
	"testing"
)

func TestOnlyWhatIsPermittedIsDialled(t *testing.T) {
	permit, err := NewPermit(
		[]string{"db:6379", "*.shop.svc.$domain:*", "[fd00::5]:443", "localhost:5432"}, "k8s.corp",
	)
	if err != nil {
		t.Fatal(err)
	}
	for target, allowed := range map[struct {
		host string
		port int
	}]bool{
		{"db", 6379}: true, {"DB.", 6379}: true, {"db", 22}: false, {"db.evil.example", 6379}: false,
		{"api.shop.svc.k8s.corp", 80}: true, {"Db-0.db.shop.svc.k8s.corp.", 1}: true,
		{"api.other.svc.k8s.corp", 80}: false, {"shop.svc.k8s.corp", 80}: false,
		{"api.shop.svc.evil.example", 80}: false, {"api.shop.svc.k8s.corp.evil.example", 80}: false,
		{"fd00::5", 443}: true, {"fd00::6", 443}: false,
		{"localhost", 5432}: true, {"127.0.0.1", 5432}: false, {"localhost", 48222}: false,
		{"169.254.169.254", 80}: false, {"*", 80}: false, {"", 80}: false,
		{"a/b.shop.svc.x", 80}: false,
	} {
		if permit.Allows(target.host, target.port) != allowed {
			t.Errorf("%v: not %v", target, allowed)
		}
	}
	var anything *Permit
	if !anything.Allows("anywhere.example", 1) {
		t.Error("without a list nothing is refused")
	}
	for _, broken := range []string{"db", "[db:1", "[x:1"} {
		if _, err := NewPermit([]string{broken}, ""); err == nil {
			t.Errorf("%q was read", broken)
		}
	}
}

// FuzzTarget is what a client may send first on a spare channel.
func FuzzTarget(f *testing.F) {
	f.Add([]byte("\x00\x50\x00\x16api.shop.svc.cluster.local"))
	f.Add([]byte("\x00\x16\x00\x00"))
	permit, err := NewPermit([]string{"*.shop.svc.$domain:*", "db:6379"}, "cluster.local")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		host, port, err := readTarget(bytes.NewReader(sent))
		if err != nil || !permit.Allows(host, port) {
			return
		}
		name := strings.ToLower(host)
		if strings.TrimSuffix(name, ".") != "db" && !strings.HasSuffix(strings.TrimSuffix(name, "."), ".shop.svc.cluster.local") || strings.ContainsRune(host, '/') {
			t.Errorf("%q is permitted", host)
		}
	})
}
