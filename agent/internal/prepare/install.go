package prepare

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Install copies this very program to a path: an image that has nothing but the agent
// cannot copy it in another way.
func Install(path string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open this program: %w", err)
	}
	defer from.Close()
	to, err := os.CreateTemp(filepath.Dir(path), ".install-")
	if err != nil {
		return fmt.Errorf("make a file beside %s: %w", path, err)
	}
	_, err = io.Copy(to, from)
	if closed := to.Close(); err == nil {
		err = closed
	}
	// Every user may run it, as with the pieces.
	if err == nil {
		err = os.Chmod(to.Name(), 0o555)
	}
	if err == nil {
		err = os.Rename(to.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("copy this program to %s: %w", path, err)
	}
	return nil
}
