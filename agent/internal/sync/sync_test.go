package sync

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIgnoreVectors(t *testing.T) {
	text, err := os.ReadFile("../../../tests/vectors/sync-ignore.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name  string
		Rules json.RawMessage
		Paths [][2]any
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	for _, each := range cases {
		t.Run(each.Name, func(t *testing.T) {
			ignore, err := ParseIgnore(each.Rules)
			if err != nil {
				t.Fatal(err)
			}
			for _, pair := range each.Paths {
				path := pair[0].(string)
				isFolder := strings.HasSuffix(path, "/")
				if got := ignore.Hides(strings.TrimSuffix(path, "/"), isFolder); got != pair[1] {
					t.Errorf("%q: ignored %v, want %v", path, got, pair[1])
				}
			}
		})
	}
}

func treeOf(t *testing.T, rules string) (*tree, string) {
	t.Helper()
	root := t.TempDir()
	place, err := openPlace(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(place.close)
	ignore, err := ParseIgnore([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	return newTree(place, ignore), root
}

func write(t *testing.T, root, path, text string) {
	t.Helper()
	full := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestALinkIsNeverFollowed(t *testing.T) {
	tree, root := treeOf(t, `{}`)
	outside := t.TempDir()
	write(t, outside, "secret", "theirs")
	if err := os.Symlink(outside, filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("in", filepath.Join(root, "alias")); err != nil {
		t.Fatal(err)
	}
	if err := tree.scan(); err != nil {
		t.Fatal(err)
	}
	if tree.entries["out"].Kind != Other || tree.entries["alias"].Kind != Link || len(tree.entries) != 3 {
		t.Fatalf("%v", tree.entries)
	}
	applying := &applying{tree, newStaging(tree.place)}
	for _, path := range []string{"out/secret", "alias/new", "../x", "/etc/x", "a/../../x", ".git/hooks/x"} {
		if applying.change(path, Entry{}, Entry{Kind: Folder}) == nil {
			t.Errorf("%s was made", path)
		}
	}
	if err := applying.change("l", Entry{}, Entry{Kind: Link, Target: "../../etc"}); err == nil {
		t.Error("a link that leads out was made")
	}
	if found, _ := os.ReadDir(filepath.Join(root, "in")); len(found) != 0 {
		t.Error("something was made through a link")
	}
}

func TestAnIgnoredFolderIsNotWalked(t *testing.T) {
	tree, root := treeOf(t, `{"last": [{"pattern": "node_modules", "only_folders": true}]}`)
	write(t, root, "node_modules/a/b", "x")
	write(t, root, "src/a", "x")
	var walked []string
	tree.watched = func(path string, _ int) { walked = append(walked, path) }
	if err := tree.scan(); err != nil {
		t.Fatal(err)
	}
	if strings.Join(walked, ",") != ",src" || len(tree.entries) != 2 {
		t.Fatalf("walked %q, found %v", walked, tree.entries)
	}
}

func TestWhatChangedMeanwhileIsNotReplaced(t *testing.T) {
	tree, root := treeOf(t, `{}`)
	write(t, root, "a", "one")
	if err := tree.scan(); err != nil {
		t.Fatal(err)
	}
	was := tree.entries["a"].Entry
	write(t, root, "a", "two") // as long, and maybe within one tick of the file system's clock
	applying := &applying{tree, newStaging(tree.place)}
	if err := applying.change("a", was, Entry{}); err != errOther {
		t.Fatalf("%v", err)
	}
	if text, _ := os.ReadFile(filepath.Join(root, "a")); string(text) != "two" {
		t.Fatalf("%q", text)
	}
}

func TestRefusedRoots(t *testing.T) {
	for _, path := range []string{"/", "//", "/proc", "/proc/self", "/towline/run", "relative", "/x/../"} {
		if p, err := openPlace(path); err == nil {
			p.close()
			t.Errorf("%s was opened", path)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 'f', 1})
	f.Fuzz(func(t *testing.T, payload []byte) {
		r := &reading{left: payload}
		n := r.named()
		if r.err == nil && len(payload) > 0 {
			again := &reading{left: appendNamed(nil, n.Path, n.Entry)}
			if m := again.named(); m != n {
				t.Fatalf("%v became %v", n, m)
			}
		}
	})
}

func TestAFileInAFoldersPlaceTakesAllBelowItWithIt(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "a/b/c"), []byte("c"), 0o644); err != nil {
		t.Fatal(err)
	}
	place, err := openPlace(root)
	if err != nil {
		t.Fatal(err)
	}
	defer place.close()
	ignore, _ := ParseIgnore([]byte("{}"))
	tree := newTree(place, ignore)
	if err := tree.scan(); err != nil || len(tree.entries) != 3 {
		t.Fatal(len(tree.entries), err)
	}
	if err := os.Rename(filepath.Join(root, "a"), root+"-a"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "a"), []byte("a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	tree.look("a")
	if len(tree.entries) != 1 || tree.entries["a"].Kind != File {
		t.Fatal(tree.entries)
	}
}
