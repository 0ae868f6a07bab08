package guard

import (
	"encoding/json"
	"reflect"

	"towline.dev/agent/internal/kube"
)

// The rules of src/towline/plan/fields.py; tests/vectors/managed-fields.json is run by
// both sides.

const ourManager = "towline"

var (
	replicasPath   = []string{"f:spec", "f:replicas"}
	selectorPath   = []string{"f:spec", "f:selector"}
	whenScaledPath = []string{"f:spec", "f:persistentVolumeClaimRetentionPolicy", "f:whenScaled"}
)

// ourPaths are the fields that are ours and hold what was there before.
func ourPaths(original kube.Object, record *record, live []any) [][]string {
	var paths [][]string
	if replicasOf(original) == record.Replicas && isOurs(live, replicasPath) {
		paths = append(paths, replicasPath)
	}
	if isOurs(live, whenScaledPath) {
		paths = append(paths, whenScaledPath)
	}
	return paths
}

func isOurs(live []any, path []string) bool {
	for _, each := range live {
		entry, _ := each.(map[string]any)
		if entry["manager"] == ourManager && has(entry, path) {
			return true
		}
	}
	return false
}

// managersPutBack is managedFields with our entries gone and the former owners of
// paths owning them again.
func managersPutBack(live, former []any, paths [][]string) []any {
	result := []any{}
	for _, each := range live {
		if entry, _ := each.(map[string]any); entry["manager"] != ourManager {
			result = append(result, clone(entry))
		}
	}
	for _, each := range former {
		before, _ := each.(map[string]any)
		if before["manager"] == ourManager {
			continue
		}
		var lost [][]string
		for _, path := range paths {
			if has(before, path) {
				lost = append(lost, path)
			}
		}
		if len(lost) == 0 {
			continue
		}
		entry := sameManager(result, before)
		if entry == nil {
			entry = clone(before)
			entry["fieldsV1"] = map[string]any{}
			result = append(result, entry)
		}
		for _, path := range lost {
			add(entry, path)
		}
		if reflect.DeepEqual(entry["fieldsV1"], before["fieldsV1"]) {
			entry["time"] = before["time"]
		}
	}
	return result
}

func sameManager(entries []any, as map[string]any) map[string]any {
	for _, each := range entries {
		entry, _ := each.(map[string]any)
		same := true
		for _, key := range []string{"manager", "operation", "apiVersion", "subresource"} {
			same = same && entry[key] == as[key]
		}
		if same {
			return entry
		}
	}
	return nil
}

func has(entry map[string]any, path []string) bool {
	node, _ := entry["fieldsV1"].(map[string]any)
	for _, step := range path {
		next, ok := node[step]
		if !ok {
			return false
		}
		node, _ = next.(map[string]any)
	}
	return true
}

func add(entry map[string]any, path []string) {
	node, ok := entry["fieldsV1"].(map[string]any)
	if !ok {
		node = map[string]any{}
		entry["fieldsV1"] = node
	}
	for _, step := range path {
		next, ok := node[step].(map[string]any)
		if !ok {
			next = map[string]any{}
			node[step] = next
		}
		node = next
	}
}

// clone copies by way of JSON, which is where it came from.
func clone(entry map[string]any) map[string]any {
	text, _ := json.Marshal(entry)
	var copied map[string]any
	_ = json.Unmarshal(text, &copied)
	return copied
}
