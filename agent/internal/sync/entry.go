package sync

import "strings"

// Kind is what is at a path.
type Kind byte

// Other is something that is there and is not synced: a socket, a file that cannot be
// read, a link that leads out. It must not look like nothing, which would be a deletion.
const (
	Gone   Kind = 0
	File   Kind = 'f'
	Folder Kind = 'd'
	Link   Kind = 'l'
	Other  Kind = 'x'
)

// Entry is what is at a path, as src/towline/sync/model.py has it.
type Entry struct {
	Kind       Kind
	Executable bool
	Mtime      int64 // ns
	Size       int64
	Digest     [32]byte
	Target     string
}

func same(one, other Entry) bool {
	return one.Kind == other.Kind && one.Digest == other.Digest &&
		one.Target == other.Target && one.Executable == other.Executable
}

const (
	nameAtMost = 255
	pathAtMost = 4096
)

// staysInside tells whether a path from the client is one that a tree may hold.
func staysInside(path string) bool {
	if path == "" || len(path) > pathAtMost || strings.Contains(path, "\x00") {
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || len(name) > nameAtMost {
			return false
		}
	}
	return true
}

// pointsInside tells whether a link at path leads to somewhere in the root, as written.
func pointsInside(path, target string) bool {
	if target == "" || target[0] == '/' || strings.Contains(target, "\x00") {
		return false
	}
	depth := strings.Count(path, "/")
	for name := range strings.SplitSeq(target, "/") {
		switch name {
		case "..":
			if depth--; depth < 0 {
				return false
			}
		case "", ".":
		default:
			depth++
		}
	}
	return true
}

func parent(path string) string {
	return path[:max(strings.LastIndexByte(path, '/'), 0)]
}

func base(path string) string {
	return path[strings.LastIndexByte(path, '/')+1:]
}

func join(folder, name string) string {
	if folder == "" {
		return name
	}
	return folder + "/" + name
}
