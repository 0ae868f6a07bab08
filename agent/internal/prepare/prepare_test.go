package prepare

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func run(t *testing.T, task Task) string {
	t.Helper()
	argument, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	var told strings.Builder
	if err := Run(string(argument), &told); err != nil {
		t.Fatal(err)
	}
	return told.String()
}

func write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestAFolderIsFilledOnceWithWhatTheImageHas(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "app"), filepath.Join(t.TempDir(), "kept/app")
	write(t, filepath.Join(from, "bin/run"), "run", 0o555)
	write(t, filepath.Join(from, "main.py"), "image's", 0o644)
	old := time.Unix(1_000_000, 0)
	if err := os.Chtimes(filepath.Join(from, "main.py"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("bin/run", filepath.Join(from, "start")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(from, "bin"), 0o555); err != nil {
		t.Fatal(err)
	}
	task := Task{Folders: []Folder{{From: from, To: to}}}
	// Broken off: this file was there already when it began again.
	write(t, filepath.Join(to, "main.py"), "the user's", 0o644)
	run(t, task)
	if got := read(t, filepath.Join(to, "start")); got != "run" {
		t.Errorf("the link leads to %q", got)
	}
	info, err := os.Stat(filepath.Join(to, "bin/run"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v: to be executed, and written by its new owner", info.Mode(), err)
	}
	if got := read(t, filepath.Join(to, "main.py")); got != "the user's" {
		t.Errorf("what was there was replaced by %q", got)
	}
	if err := os.Remove(filepath.Join(to, "start")); err != nil {
		t.Fatal(err)
	}
	run(t, task)
	if _, err := os.Lstat(filepath.Join(to, "start")); err == nil {
		t.Error("what was deleted came back")
	}
}

func TestAFolderThatTheImageHasNotIsEmpty(t *testing.T) {
	to := filepath.Join(t.TempDir(), "app")
	run(t, Task{Folders: []Folder{{From: "/no/such/folder", To: to}}})
	entries, err := os.ReadDir(to)
	if err != nil || len(entries) != 1 || entries[0].Name() != filledMark {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestAConfigMapsFilesAreFilesOfTheirOwn(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "..2026_11/app.conf"), "from the map", 0o644)
	for name, target := range map[string]string{"..data": "..2026_11", "app.conf": "..data/app.conf"} {
		if err := os.Symlink(target, filepath.Join(from, name)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, Task{Folders: []Folder{{From: from, To: to}}})
	entries, err := os.ReadDir(to)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v, %v", entries, err)
	}
	info, err := os.Lstat(filepath.Join(to, "app.conf"))
	if err != nil || !info.Mode().IsRegular() || read(t, filepath.Join(to, "app.conf")) != "from the map" {
		t.Errorf("%v, %v", info, err)
	}
}

func TestAFileHasTheModeThatWasAskedFor(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "0"), filepath.Join(t.TempDir(), "put/0")
	write(t, from, "secret", 0o444)
	for _, mode := range []fs.FileMode{0o400, 0o666, 0o755} {
		run(t, Task{Files: []File{{From: from, To: to, Mode: mode}}})
		info, err := os.Stat(to)
		if err != nil || info.Mode().Perm() != mode || read(t, to) != "secret" {
			t.Errorf("%v, %v, not %v", info.Mode(), err, mode)
		}
	}
}
