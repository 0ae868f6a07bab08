package sync

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// ownPrefix begins the names of our temporary files and of a claim's marker.
const ownPrefix = ".towline-"

var versionControl = map[string]bool{
	".git": true, ".hg": true, ".svn": true, ".bzr": true, ".jj": true,
	"_darcs": true, "cvs": true, ".pijul": true,
}

type rule struct {
	Pattern     string `json:"pattern"`
	TakesBack   bool   `json:"takes_back"`
	OnlyFolders bool   `json:"only_folders"`
	MayGo       bool   `json:"may_go"`
	expression  *regexp.Regexp
}

// Ignore matches the rules that the client translated (src/towline/sync/ignore.py).
type Ignore struct {
	First []*rule `json:"first"`
	Last  []*rule `json:"last"`
	// looksIntoIgnored: an ignored folder may hold what is synced.
	looksIntoIgnored bool
}

// ParseIgnore reads the rules as the client sends them.
func ParseIgnore(text []byte) (*Ignore, error) {
	ignore := &Ignore{}
	if err := json.Unmarshal(text, ignore); err != nil {
		return nil, fmt.Errorf("read the ignore rules: %w", err)
	}
	for _, rules := range [][]*rule{ignore.First, ignore.Last} {
		for _, each := range rules {
			expression, err := regexp.Compile("(?s)^(?:" + each.Pattern + ")$")
			if err != nil {
				return nil, fmt.Errorf("read an ignore rule: %w", err)
			}
			each.expression = expression
		}
	}
	for _, each := range ignore.First {
		ignore.looksIntoIgnored = ignore.looksIntoIgnored || each.TakesBack
	}
	return ignore, nil
}

func (r *rule) matches(path string, isFolder bool) bool {
	return (isFolder || !r.OnlyFolders) && r.expression.MatchString(path)
}

func (i *Ignore) never(path string) bool {
	name := base(path)
	return strings.HasPrefix(name, ownPrefix) || path == ".stignore" || name == ".towlineignore" ||
		versionControl[strings.ToLower(name)]
}

// first gives the rule of Syncthing's that decides, or nil.
func (i *Ignore) first(path string, isFolder bool) *rule {
	for _, each := range i.First {
		if each.matches(path, isFolder) {
			return each
		}
	}
	return nil
}

func (i *Ignore) lastIgnores(path string, isFolder bool) bool {
	for at := len(i.Last) - 1; at >= 0; at-- {
		if i.Last[at].matches(path, isFolder) {
			return !i.Last[at].TakesBack
		}
	}
	return false
}

func (i *Ignore) byRule(path string, isFolder bool) bool {
	if decides := i.first(path, isFolder); decides != nil && !decides.TakesBack {
		return true
	}
	return i.lastIgnores(path, isFolder)
}

// skips tells whether a path is ignored whose folders above are not.
func (i *Ignore) skips(path string, isFolder bool) bool {
	return i.never(path) || i.byRule(path, isFolder)
}

// entersIgnored tells whether an ignored folder is walked all the same.
func (i *Ignore) entersIgnored(folder string) bool {
	return i.looksIntoIgnored && !i.never(folder) && !i.lastIgnores(folder, true)
}

// Hides tells whether a path or a folder that it is in is ignored.
func (i *Ignore) Hides(path string, isFolder bool) bool {
	for at := 0; at < len(path); at++ {
		if path[at] == '/' && i.skips(path[:at], true) && !i.entersIgnored(path[:at]) {
			return true
		}
	}
	return i.skips(path, isFolder)
}

// mayGo tells whether an ignored path may be deleted where it keeps a folder from going.
func (i *Ignore) mayGo(path string, isFolder bool) bool {
	decides := i.first(path, isFolder)
	return !i.never(path) && decides != nil && decides.MayGo && !decides.TakesBack
}
