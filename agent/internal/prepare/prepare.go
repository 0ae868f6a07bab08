// Package prepare runs before the dev container, in its image and as its user: it fills
// the folders that stand in for the image's own with what the image has there, and puts
// files in place with the mode that they were asked for. No shell and no tar are needed.
package prepare

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// filledMark says in a folder that it was filled to the end: a claim is filled once, so
// that what was deleted in it does not come back. Names with this prefix are not synced.
const filledMark = ".towline-filled"

// kubeletsOwn begins what the kubelet keeps in the folder of a ConfigMap: the version in
// force is behind ..data, and each name is a link there.
const kubeletsOwn = ".."

// Task is the -prepare argument.
type Task struct {
	Folders []Folder `json:"folders"`
	Files   []File   `json:"files"`
}

// Folder is filled with what the image has at From, once.
type Folder struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// File is a copy with a mode of its own.
type File struct {
	From string      `json:"from"`
	To   string      `json:"to"`
	Mode fs.FileMode `json:"mode"`
}

// Run does what the argument says. Files of the image that cannot be read are left out,
// and told.
func Run(argument string, told io.Writer) error {
	var task Task
	if err := json.Unmarshal([]byte(argument), &task); err != nil {
		return fmt.Errorf("read -prepare: %w", err)
	}
	for _, folder := range task.Folders {
		if err := fill(folder, told); err != nil {
			return fmt.Errorf("fill %s: %w", folder.From, explained(err))
		}
	}
	for _, file := range task.Files {
		if err := put(file); err != nil {
			return fmt.Errorf("put a file in place: %w", err)
		}
	}
	return nil
}

func explained(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: user %d of the container cannot write to the volume; a "+
			"`securityContext` with its group as fsGroup lets it, where the storage knows it", err, os.Getuid())
	}
	return err
}

func fill(folder Folder, told io.Writer) error {
	if err := os.MkdirAll(folder.To, 0o755); err != nil {
		return err
	}
	mark := filepath.Join(folder.To, filledMark)
	if _, err := os.Lstat(mark); err == nil {
		return nil
	}
	// The root may be a link of the image's: what it leads to is the folder.
	from, err := filepath.EvalSymlinks(folder.From)
	if err == nil {
		err = copyFolder(from, folder.To, told)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(mark, nil, 0o644)
}

// copyFolder copies what is not there yet: a fill that was broken off goes on.
func copyFolder(from, to string, told io.Writer) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrPermission) {
		fmt.Fprintf(told, "towline: left out, it cannot be read: %s\n", from)
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), kubeletsOwn) {
			continue
		}
		if err := copyEntry(entry, filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name()), told); err != nil {
			return err
		}
	}
	return nil
}

func copyEntry(entry fs.DirEntry, from, to string, told io.Writer) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	switch entry.Type() {
	case fs.ModeDir:
		// Writable while it is filled, whatever the image says.
		if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := copyFolder(from, to, told); err != nil {
			return err
		}
		return as(to, info)
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if strings.HasPrefix(target, kubeletsOwn+"data/") {
			return copyTarget(from, to, told)
		}
		if err := os.Symlink(target, to); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case 0:
		return copyFile(info, from, to, told)
	}
	return nil // a socket, a device: not the image's content
}

// copyTarget copies what a link of the kubelet's leads to: a file or a folder of a ConfigMap.
func copyTarget(from, to string, told io.Writer) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		return copyFolder(from, to, told)
	}
	return copyFile(info, from, to, told)
}

func copyFile(info fs.FileInfo, from, to string, told io.Writer) error {
	if _, err := os.Lstat(to); err == nil {
		return nil
	}
	source, err := os.Open(from)
	if errors.Is(err, fs.ErrPermission) {
		fmt.Fprintf(told, "towline: left out, it cannot be read: %s\n", from)
		return nil
	}
	if err != nil {
		return err
	}
	defer source.Close()
	// By another name first: half a file is no reason to leave the rest out the next time.
	partial := filepath.Join(filepath.Dir(to), ".towline-filling")
	target, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	if err := errors.Join(err, target.Close()); err != nil {
		return err
	}
	if err := as(partial, info); err != nil {
		return err
	}
	return os.Rename(partial, to)
}

// as gives a copy the mode and the time of what it was copied from; its owner is the
// container's user, who is to change it.
func as(path string, info fs.FileInfo) error {
	mode := info.Mode().Perm() | 0o600
	if info.IsDir() {
		mode |= 0o700
	}
	return errors.Join(os.Chmod(path, mode), os.Chtimes(path, time.Time{}, info.ModTime()))
}

func put(file File) error {
	content, err := os.ReadFile(file.From)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file.To), 0o755); err != nil {
		return err
	}
	_ = os.Remove(file.To)
	// The umask is the image's; the mode is the manifest's.
	unix.Umask(0)
	return os.WriteFile(file.To, content, file.Mode)
}
