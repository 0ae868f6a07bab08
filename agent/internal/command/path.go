// Package command runs commands in the container for session channels: with its
// environment, user and folder, with or without a terminal.
package command

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"towline.dev/agent/internal/environ"
)

// defaultPath is what runtimes use where an image sets no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// The exit codes of POSIX shells for commands that do not start.
const (
	notExecutable = 126
	notFound      = 127
)

// lookup finds a program as a shell in the container would: by the container's
// own PATH, not the agent's idea of one.
func lookup(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	path := environ.Lookup(env, "PATH")
	if path == "" {
		path = defaultPath
	}
	err := error(fs.ErrNotExist)
	for _, folder := range filepath.SplitList(path) {
		if folder == "" {
			folder = "."
		}
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(dir, folder)
		}
		candidate := filepath.Join(folder, name)
		found := executable(candidate)
		if found == nil {
			return candidate, nil
		}
		if errors.Is(found, fs.ErrPermission) {
			err = found
		}
	}
	return "", err
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fs.ErrPermission
	}
	if unix.Access(path, unix.X_OK) != nil {
		return fs.ErrPermission
	}
	return nil
}

// shell finds the image's shell: the container's SHELL, the user's in
// /etc/passwd, else sh. Empty when the image has none.
func shell(env []string, dir string) string {
	for _, candidate := range []string{environ.Lookup(env, "SHELL"), passwdShell("/etc/passwd", os.Getuid())} {
		switch filepath.Base(candidate) {
		case ".", "nologin", "false", "true":
			continue
		}
		if executable(candidate) == nil {
			return candidate
		}
	}
	return posixShell(env, dir)
}

// posixShell is what runs `exec` requests.
func posixShell(env []string, dir string) string {
	if executable("/bin/sh") == nil {
		return "/bin/sh"
	}
	path, err := lookup("sh", env, dir) // busybox in distroless's debug images
	if err != nil {
		return ""
	}
	return path
}

func passwdShell(file string, uid int) string {
	passwd, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer passwd.Close()
	lines := bufio.NewScanner(passwd)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) == 7 && fields[2] == strconv.Itoa(uid) {
			return fields[6]
		}
	}
	return ""
}

var errNeedsShell = errors.New("it needs a shell")

// words splits a command line of plain and quoted words, for images that have
// no shell; anything a shell would have to expand or connect is refused.
func words(line string) ([]string, error) {
	var (
		list   []string
		word   strings.Builder
		inWord bool
	)
	line = strings.TrimSpace(line)
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t':
			if inWord {
				list = append(list, word.String())
				word.Reset()
				inWord = false
			}
		case '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, errNeedsShell
			}
			word.WriteString(line[i+1 : i+1+end])
			inWord = true
			i += end + 1
		case '"':
			inWord = true
			for i++; ; i++ {
				if i >= len(line) || line[i] == '$' || line[i] == '`' {
					return nil, errNeedsShell
				}
				if line[i] == '"' {
					break
				}
				if line[i] == '\\' && i+1 < len(line) && strings.IndexByte("\\\"$`", line[i+1]) >= 0 {
					i++
				}
				word.WriteByte(line[i])
			}
		case '\\':
			if i++; i >= len(line) {
				return nil, errNeedsShell
			}
			word.WriteByte(line[i])
			inWord = true
		case '\n', '|', '&', ';', '<', '>', '(', ')', '$', '`', '*', '?', '[', '~', '{', '}', '!', '#':
			return nil, errNeedsShell
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		list = append(list, word.String())
	}
	if len(list) == 0 || strings.Contains(list[0], "=") {
		return nil, errNeedsShell
	}
	return list, nil
}
