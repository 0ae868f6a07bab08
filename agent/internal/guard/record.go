package guard

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"towline.dev/agent/internal/kube"
)

const (
	restoreAnnotation = "towline.dev/restore"
	// givenBack is on an original that serves while its session still waits for the laptop.
	givenBack    = "towline.dev/given-back"
	sessionLabel = "towline.dev/session"
	schema       = 1
)

// record is what the guard needs of a session's record (src/towline/plan/record.py).
type record struct {
	Schema      int    `json:"schema"`
	Session     string `json:"session"`
	Kind        string `json:"kind"`
	Workload    string `json:"workload"`
	WorkloadUID string `json:"workload_uid"`
	Replicas    int    `json:"replicas"`
	Original    string `json:"original"`
	Handover    string `json:"handover"`
	Names       struct {
		DevWorkload string `json:"dev_workload"`
	} `json:"names"`
	Actions []struct {
		Kind   string `json:"kind"`
		Name   string `json:"name"`
		Values struct {
			WhenScaled string            `json:"when_scaled"`
			UID        string            `json:"uid"`
			Selector   map[string]string `json:"selector"`
			Managers   []any             `json:"managers"`
		} `json:"values"`
	} `json:"actions"`
	ManagedFields []any `json:"managed_fields"`

	uid string
}

// readRecord reads the session's record; nil when it is gone, and the session with it.
func readRecord(ctx context.Context, api API, name string) (*record, error) {
	found, err := api.Get(ctx, "configmaps", name)
	if kube.IsCode(err, 404) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, _ := at(found, "data", "record.json").(string)
	var r record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, fmt.Errorf("read the record %s: %w", name, err)
	}
	if r.Schema != schema {
		return nil, fmt.Errorf("the record %s has schema %d, this guard knows %d", name, r.Schema, schema)
	}
	r.uid, _ = at(found, "metadata", "uid").(string)
	return &r, nil
}

func (r *record) resource() string { return strings.ToLower(r.Kind) + "s" }

// holds tells whether the original is this session's, by its annotation.
func (r *record) holds(original kube.Object) bool {
	text, _ := at(original, "metadata", "annotations", restoreAnnotation).(string)
	var mark struct {
		Session string `json:"session"`
	}
	return json.Unmarshal([]byte(text), &mark) == nil && mark.Session == r.Session
}

// owns tells whether a dev workload is this session's.
func (r *record) owns(found kube.Object) bool {
	return at(found, "metadata", "labels", sessionLabel) == r.Session
}

// retention is the claim retention on scaling to put back, "" where it was not touched.
func (r *record) retention() string {
	for _, action := range r.Actions {
		if action.Kind == "retain-claims" {
			return action.Values.WhenScaled
		}
	}
	return ""
}

// pointed is a Service that is pointed at the dev pod, as it was before.
type pointed struct {
	name, uid string
	selector  map[string]string
	managers  []any
}

// services are those whose selectors are to be put back.
func (r *record) services() []pointed {
	var found []pointed
	for _, action := range r.Actions {
		if v := action.Values; action.Kind == "point-service" {
			found = append(found, pointed{action.Name, v.UID, v.Selector, v.Managers})
		}
	}
	return found
}

// isKept tells whether the original is up beside the dev pod.
func (r *record) isKept() bool { return r.Original == "keep" }

// at is the value at a path; nil where there is none.
func at(object kube.Object, path ...string) any {
	var value any = object
	for _, step := range path {
		fields, _ := value.(map[string]any)
		value = fields[step]
	}
	return value
}

// replicasOf is 1 where none are named, as Kubernetes has it.
func replicasOf(workload kube.Object) int {
	if number, ok := at(workload, "spec", "replicas").(float64); ok {
		return int(number)
	}
	return 1
}
