package sync

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func named(path string, content []byte) Named {
	return Named{path, Entry{Kind: File, Mtime: 1e18, Size: int64(len(content)), Digest: sha256.Sum256(content)}}
}

// Small files are written by several at once: all are there when it has settled, each as it
// was sent, and what is not what it was to be is nowhere.
func TestSmallFilesAreWrittenWhole(t *testing.T) {
	tree, root := treeOf(t, "{}")
	for folder := range 10 {
		if err := os.Mkdir(filepath.Join(root, fmt.Sprint(folder)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	staging := newStaging(tree.place)
	// In one piece of memory, as the frames of a packed one are.
	packed := make([]byte, 0, 1<<20)
	files := map[string][]byte{}
	for number := range 2_000 {
		path := fmt.Sprintf("%d/file %d", number%10, number)
		at := len(packed)
		packed = append(packed, strings.Repeat(fmt.Sprint(number, " "), number%97)...)
		files[path] = packed[at:]
		staging.begin(named(path, files[path]))
		half := len(files[path]) / 2
		staging.write(files[path][:half])
		staging.write(files[path][half:])
	}
	wrong := named("0/wrong", []byte("as it was"))
	staging.begin(wrong)
	staging.write([]byte("as it is!"))
	staging.begin(named("0/short", []byte("as it was")))
	staging.write([]byte("as"))
	staging.begin(named("0/long", []byte("as it was")))
	staging.write([]byte("as it was, and more"))
	staging.settle()

	for _, path := range []string{"0/wrong", "0/short"} {
		if one := staging.files[path]; !errors.Is(one.err, errNotWhole) || one.name != "" {
			t.Errorf("%s: %v, staged as %q", path, one.err, one.name)
		}
	}
	if one := staging.files["0/long"]; !errors.Is(one.err, errMore) {
		t.Errorf("too long: %v", one.err)
	}
	for path, content := range files {
		one := staging.files[path]
		if one.err != nil {
			t.Fatalf("%s: %v", path, one.err)
		}
		got, err := os.ReadFile(filepath.Join(root, one.folder, one.name))
		if err != nil || string(got) != string(content) {
			t.Fatalf("%s: %d bytes of %d: %v", path, len(got), len(content), err)
		}
	}
	staging.discard()
	for folder := range 10 {
		left, err := os.ReadDir(filepath.Join(root, fmt.Sprint(folder)))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v (%v)", left, err)
		}
	}
}
