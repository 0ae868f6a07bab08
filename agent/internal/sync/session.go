package sync

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	framesAhead = 4
	// together: what a program does to several files at once is told at once.
	together = 3 * time.Millisecond
	// writtenAfter: a file that is open for writing is looked at when it is closed, or then:
	// a save empties the file first, and nobody is to see that.
	writtenAfter = 300 * time.Millisecond
	// unstableAgain: when a file that changed while it was read is read again.
	unstableAgain = 300 * time.Millisecond
	// pollEvery, where watches ran out.
	pollEvery = 2 * time.Second
	// largeFile: hashed again at most once in largeEvery, for one that grows for ever.
	largeFile  = 1 << 20
	largeEvery = time.Second
)

const markerName = ownPrefix + "marker"

// Serve keeps one folder for one client, until the channel ends.
func Serve(channel io.ReadWriter, boot string) error {
	s := &session{
		in: bufio.NewReaderSize(channel, 64<<10), out: writing{to: bufio.NewWriterSize(channel, 64<<10)},
		dirty: map[string]bool{}, largeAt: map[string]time.Time{},
	}
	err := s.run(boot)
	if err != nil && !errors.Is(err, io.EOF) {
		_ = s.out.frame(frameRefused, short(nil, err.Error()))
		_ = s.out.flush()
	}
	return err
}

type session struct {
	in      *bufio.Reader
	out     writing
	place   *place
	tree    *tree
	staging *staging
	watcher *watcher
	// dirty paths; true: they only got that name, from us as a rule.
	dirty   map[string]bool
	largeAt map[string]time.Time
	soon    *time.Timer
	// open files that are being written, since when
	open    map[string]time.Time
	written *time.Timer
	poll    <-chan time.Time
	told    bool // that it polls
}

func (s *session) run(boot string) error {
	first, err := readFrame(s.in)
	if err != nil {
		return err
	}
	if first.kind != frameOpen {
		return fmt.Errorf("OPEN is expected, not frame %#x", first.kind)
	}
	incarnation, err := s.opens(first.payload, boot)
	if err != nil {
		return err
	}
	defer s.place.close()
	defer s.staging.discard()
	if s.watcher != nil {
		defer s.watcher.Close()
	}
	if err := s.out.frame(frameOpened, short(nil, incarnation)); err != nil {
		return err
	}
	if err := s.scanned(); err != nil {
		return err
	}
	return s.loop()
}

func (s *session) opens(payload []byte, boot string) (incarnation string, err error) {
	asked := &reading{left: payload}
	version, flags := asked.u8(), asked.u8()
	root, rules := asked.short(), asked.take(asked.u32())
	if asked.err != nil {
		return "", asked.err
	}
	if version != protocolVersion {
		return "", fmt.Errorf("version %d of the protocol is not known", version)
	}
	ignore, err := ParseIgnore(rules)
	if err != nil {
		return "", err
	}
	if s.place, err = openPlace(root); err != nil {
		return "", err
	}
	s.tree = newTree(s.place, ignore)
	s.staging = newStaging(s.place)
	s.soon = time.NewTimer(time.Hour)
	s.soon.Stop()
	s.written = time.NewTimer(time.Hour)
	s.written.Stop()
	s.open = map[string]time.Time{}
	if s.watcher, err = newWatcher(); err != nil {
		s.poll = time.NewTicker(pollEvery).C
	} else {
		s.tree.watched = s.watcher.Watch
	}
	var stat unix.Stat_t
	if err := unix.Fstat(s.place.fd, &stat); err != nil {
		return "", err
	}
	if flags&1 != 0 {
		// Without the device, whose number is another one wherever the claim is attached.
		text, err := marker(s.place.path)
		return fmt.Sprintf("%s-%x", text, stat.Ino), err
	}
	return fmt.Sprintf("%s-%x-%x", boot, stat.Dev, stat.Ino), err
}

// marker is what tells one claim from another, over restarts of the pod.
func marker(root string) (string, error) {
	path := filepath.Join(root, markerName)
	found, err := os.ReadFile(path)
	if err == nil && len(found) == 32 {
		return string(found), nil
	}
	random := make([]byte, 16)
	_, _ = rand.Read(random)
	text := hex.EncodeToString(random)
	return text, os.WriteFile(path, []byte(text), 0o644)
}

func (s *session) loop() error {
	ended := make(chan error, 1)
	frames := make(chan frame, framesAhead)
	go func() {
		defer close(frames)
		for {
			next, err := readFrame(s.in)
			if err != nil {
				ended <- err
				return
			}
			frames <- next
		}
	}()
	// Whoever leaves first: the reader must not wait for ever.
	defer func() {
		go func() {
			for range frames {
			}
		}()
	}()
	var dirty <-chan []event
	if s.watcher != nil {
		dirty = s.watcher.Dirty
	}
	for {
		var err error
		select {
		case next, ok := <-frames:
			if !ok {
				return <-ended
			}
			err = s.serve(next)
		case seen, ok := <-dirty:
			if !ok {
				return errors.New("watching the folder ended")
			}
			s.gather(seen)
		case <-s.soon.C:
			err = s.lookAtDirty()
		case <-s.written.C:
			s.closeWritten()
		case <-s.poll:
			err = s.scanned()
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) gather(seen []event) {
	// A folder may have been moved.
	s.place.forgetLast()
	for _, each := range seen {
		if each.isOpen {
			if len(s.open) == 0 {
				s.written.Reset(writtenAfter)
			}
			if _, ok := s.open[each.path]; !ok {
				s.open[each.path] = time.Now()
			}
			continue
		}
		delete(s.open, each.path)
		only, isDirty := s.dirty[each.path]
		s.dirty[each.path] = each.isNamed && (only || !isDirty)
		s.soon.Reset(together)
	}
}

// closeWritten looks at files whose writers go on, or were killed.
func (s *session) closeWritten() {
	for path, since := range s.open {
		if time.Since(since) < writtenAfter {
			continue
		}
		delete(s.open, path)
		s.dirty[path] = false
		s.soon.Reset(together)
	}
	if len(s.open) > 0 {
		s.written.Reset(writtenAfter / 2)
	}
}

// scanned looks at everything, and tells what is not as it was told.
func (s *session) scanned() error {
	if err := s.place.isThere(); err != nil {
		return err
	}
	if err := s.tree.scan(); err != nil {
		return err
	}
	if err := s.mayPoll(); err != nil {
		return err
	}
	return s.tell(true)
}

// mayPoll begins to poll where not everything can be watched, and says so.
func (s *session) mayPoll() error {
	var failed error
	if s.watcher != nil {
		failed = s.watcher.Failed()
	}
	if s.told || failed == nil && s.poll == nil {
		return nil
	}
	s.told = true
	if s.poll == nil {
		s.poll = time.NewTicker(pollEvery).C
	}
	text := fmt.Sprintf("the node has no more inotify watches (fs.inotify.max_user_watches, "+
		"max_user_instances; %v): the container's folder is looked at every %v", failed, pollEvery)
	return s.out.frame(frameNote, short(nil, text))
}

func (s *session) lookAtDirty() error {
	if err := s.place.isThere(); err != nil {
		return err
	}
	later := false
	paths := slices.Sorted(maps.Keys(s.dirty))
	looked, lookedTrusting := "", false
	for _, path := range paths {
		if s.isTooSoon(path) {
			later = true
			continue
		}
		isNamed := s.dirty[path]
		delete(s.dirty, path)
		if looked != "" && strings.HasPrefix(path, looked) && (isNamed || !lookedTrusting) {
			continue // with the folder that it is in
		}
		// What we renamed ourselves need not be read again, however young it is: whoever
		// writes to it is told of by an event of its own.
		s.tree.trustsYoung = isNamed
		s.tree.look(path)
		s.tree.trustsYoung = false
		if entry := s.tree.entries[path]; entry != nil && entry.Kind == Folder {
			looked, lookedTrusting = path+"/", isNamed
		}
	}
	for path := range s.tree.unstable {
		delete(s.tree.unstable, path)
		s.dirty[path] = false
		later = true
	}
	if later {
		s.soon.Reset(unstableAgain)
	}
	if err := s.mayPoll(); err != nil {
		return err
	}
	return s.tell(false)
}

func (s *session) isTooSoon(path string) bool {
	entry := s.tree.entries[path]
	if entry == nil || entry.Size < largeFile {
		delete(s.largeAt, path)
		return false
	}
	if time.Since(s.largeAt[path]) < largeEvery {
		return true
	}
	s.largeAt[path] = time.Now()
	return false
}

// tell sends what changed, and that this is all for now.
func (s *session) tell(always bool) error {
	if len(s.tree.unstable) > 0 {
		s.soon.Reset(unstableAgain)
	}
	if len(s.tree.changed) == 0 && !always {
		return nil
	}
	paths := make([]string, 0, len(s.tree.changed))
	for path := range s.tree.changed {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	clear(s.tree.changed)
	var entries []byte
	for _, path := range paths {
		entry := Entry{}
		if now := s.tree.entries[path]; now != nil {
			entry = now.Entry
		}
		entries = appendNamed(entries, path, entry)
		if len(entries) > entriesAtMost {
			if err := s.out.frame(frameEntries, entries); err != nil {
				return err
			}
			entries = entries[:0]
		}
	}
	if err := s.out.frame(frameEntries, entries); err != nil {
		return err
	}
	if err := s.out.frame(frameSettled); err != nil {
		return err
	}
	return s.out.flush()
}

func (s *session) serve(next frame) error {
	asked := &reading{left: next.payload}
	switch next.kind {
	case frameRoom:
		free := binary.BigEndian.AppendUint64(nil, s.staging.room())
		if err := s.out.frame(frameHasRoom, free); err != nil {
			return err
		}
		return s.out.flush()
	case frameFile:
		named := asked.named()
		if asked.err != nil {
			return asked.err
		}
		if named.Kind != File || !staysInside(named.Path) {
			return fmt.Errorf("%q cannot be received", named.Path)
		}
		s.stages(true)
		s.staging.begin(named)
	case frameContent:
		s.staging.write(next.payload)
	case frameDelta:
		return s.delta(asked)
	case frameUnpack:
		frames, err := unpacked(next.payload)
		if err != nil {
			return err
		}
		for _, each := range frames {
			if each.kind == frameUnpack {
				return errors.New("a packed frame in a packed frame")
			}
			if err := s.serve(each); err != nil {
				return err
			}
		}
	case frameAbandon:
		s.staging.end()
	case frameCommit:
		return s.commit(asked)
	case frameFetch:
		return s.fetch(asked)
	case frameRescan:
		// A file that is open for writing is looked at when it is closed.
		s.tree.written = s.open
		defer func() { s.tree.written = nil }()
		return s.scanned()
	default:
		return fmt.Errorf("frame %#x is not known", next.kind)
	}
	return nil
}

func (s *session) stages(now bool) {
	if s.watcher != nil {
		s.watcher.isStaging.Store(now)
	}
}

func (s *session) commit(asked *reading) error {
	if err := s.place.isThere(); err != nil {
		return err
	}
	s.staging.settle()
	// What was staged may have been long ago.
	s.place.forgetLast()
	applying := &applying{s.tree, s.staging}
	count := asked.u32()
	answer := binary.BigEndian.AppendUint32(nil, uint32(count))
	blocked := map[string]bool{}
	for range count {
		err := s.operation(asked, applying, blocked)
		if asked.err != nil {
			return asked.err
		}
		status, text := statusOf(err)
		answer = short(append(answer, status), text)
	}
	s.staging.discard()
	s.stages(false)
	s.place.forgetLast()
	if err := s.out.frame(frameDone, answer); err != nil {
		return err
	}
	return s.tell(true)
}

// operation does one thing of a commit. What could not be put aside is not replaced.
func (s *session) operation(asked *reading, applying *applying, blocked map[string]bool) error {
	switch what := asked.u8(); what {
	case 1:
		named, beside, stays := asked.named(), asked.short(), asked.u8() == 1
		if asked.err != nil {
			return asked.err
		}
		err := applying.aside(named, beside, stays)
		if err != nil {
			blocked[named.Path] = true
			s.tree.changed[named.Path] = true
		}
		return err
	case 2:
		was, wanted := asked.named(), asked.named()
		if asked.err != nil {
			return asked.err
		}
		if blocked[was.Path] {
			return errOther
		}
		err := applying.change(was.Path, was.Entry, wanted.Entry)
		if err != nil {
			s.tree.changed[was.Path] = true
		}
		return err
	default:
		asked.err = fmt.Errorf("operation %d is not known", what)
		return asked.err
	}
}

// delta begins a file that is made of what is there, and tells what is not in that.
func (s *session) delta(asked *reading) error {
	named, block := asked.named(), asked.u32()
	if asked.err != nil {
		return asked.err
	}
	if named.Kind != File || !staysInside(named.Path) {
		return fmt.Errorf("%q cannot be received", named.Path)
	}
	sums, err := parseSums(block, asked.left)
	if err != nil {
		return err
	}
	if err := s.out.frame(frameLacking, s.staging.beginWithBase(named, sums)); err != nil {
		return err
	}
	return s.out.flush()
}

// fetch sends files, one after the other, each if it is what the client thinks.
func (s *session) fetch(asked *reading) error {
	if asked.u8()&1 != 0 {
		s.out.packs = &packing{}
	}
	defer func() { s.out.packs = nil }()
	for range asked.u32() {
		named, block := asked.named(), asked.u32()
		var base *sums
		if block > 0 {
			var err error
			if base, err = parseSums(block, asked.take(asked.u32())); err != nil {
				return err
			}
		}
		if asked.err != nil {
			return asked.err
		}
		if err := s.send(named, base); err != nil {
			return err
		}
	}
	return errors.Join(asked.err, s.out.flush())
}

// send sends a file; with the sums of the client's version, as what is not in that.
func (s *session) send(named Named, base *sums) error {
	file, err := s.opened(named)
	if err != nil {
		s.dirty[named.Path] = false
		s.soon.Reset(together)
		return s.out.frame(frameFetched, short([]byte{isOther}, err.Error()))
	}
	defer file.Close()
	if err := s.out.frame(frameFetched, short([]byte{done}, "")); err != nil {
		return err
	}
	if base != nil {
		if err := base.roll(io.LimitReader(file, named.Size), s.literal, s.copied); err != nil {
			return err
		}
		return s.out.frame(frameFetchEnd)
	}
	buffer := make([]byte, min(int64(dataAtMost), max(named.Size, 1)))
	for left := named.Size; left > 0; {
		n, err := file.Read(buffer[:min(int64(len(buffer)), left)])
		if n > 0 {
			left -= int64(n)
			if err := s.out.frame(frameFetchContent, buffer[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			break // it became shorter: the digest will tell
		}
	}
	return s.out.frame(frameFetchEnd)
}

func (s *session) literal(content []byte) error {
	for len(content) > 0 {
		n := min(len(content), dataAtMost)
		if err := s.out.frame(frameFetchContent, content[:n]); err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

func (s *session) copied(found []int32, _ int64) error {
	return s.out.frame(frameFetchCopy, binary.BigEndian.AppendUint32(nil, uint32(found[0])))
}

func (s *session) opened(named Named) (*os.File, error) {
	if !staysInside(named.Path) || s.tree.ignore.Hides(named.Path, false) {
		return nil, fmt.Errorf("%q is not a path of this folder", named.Path)
	}
	var file *os.File
	err := s.place.in(named.Path, func(fd int, name string) (err error) {
		file, err = openFile(fd, name)
		return err
	})
	return file, err
}
