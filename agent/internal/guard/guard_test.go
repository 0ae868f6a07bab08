package guard

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"testing"
	"time"

	"towline.dev/agent/internal/kube"
)

func TestManagersAreAsTheClientHasThem(t *testing.T) {
	text, err := os.ReadFile("../../../tests/vectors/managed-fields.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Cases []struct {
			Name         string
			Live, Former []any
			Paths        [][]string
			PutBack      []any `json:"put_back"`
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, c := range vectors.Cases {
		t.Run(c.Name, func(t *testing.T) {
			if got := managersPutBack(c.Live, c.Former, c.Paths); !reflect.DeepEqual(got, c.PutBack) {
				t.Errorf("got %v\nwant %v", got, c.PutBack)
			}
		})
	}
}

// cluster keeps objects as the API server does: merged patches, and a resourceVersion
// that is held against a patch's own.
type cluster struct {
	objects map[string]kube.Object
	down    bool
	// between is called before each patch, as if somebody were faster.
	between func()
}

func (c *cluster) Get(_ context.Context, resource, name string) (kube.Object, error) {
	if c.down {
		return nil, fmt.Errorf("nobody answers")
	}
	found, ok := c.objects[resource+"/"+name]
	if !ok {
		return nil, &kube.Error{Code: 404}
	}
	return clone(found), nil
}

func (c *cluster) Patch(_ context.Context, resource, name string, patch kube.Object) (kube.Object, error) {
	if between := c.between; between != nil {
		c.between = nil
		between()
	}
	found, ok := c.objects[resource+"/"+name]
	if !ok {
		return nil, &kube.Error{Code: 404}
	}
	version := at(found, "metadata", "resourceVersion")
	if wanted := at(patch, "metadata", "resourceVersion"); wanted != nil && wanted != version {
		return nil, &kube.Error{Code: 409}
	}
	merge(found, clone(patch))
	number, _ := version.(string)
	found["metadata"].(map[string]any)["resourceVersion"] = number + "+"
	return clone(found), nil
}

func (c *cluster) Delete(_ context.Context, resource, name, uid string) error {
	delete(c.objects, resource+"/"+name)
	return nil
}

// merge is RFC 7386.
func merge(into, patch map[string]any) {
	for key, value := range patch {
		fields, isObject := value.(map[string]any)
		old, hadObject := into[key].(map[string]any)
		switch {
		case value == nil:
			delete(into, key)
		case isObject && hadObject:
			merge(old, fields)
		default:
			into[key] = value
		}
	}
}

const session = "0a0a0a0a"

// taken is a namespace with one session in it.
func taken(t *testing.T, handover string) *cluster {
	t.Helper()
	record, err := json.Marshal(map[string]any{
		"schema": 1, "session": session, "kind": "Deployment", "workload": "web", "workload_uid": "u1",
		"replicas": 2, "handover": handover, "names": map[string]any{"dev_workload": "web-towline"},
		"actions": []any{}, "managed_fields": []any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{objects: map[string]kube.Object{
		"leases/l":     {"spec": map[string]any{"renewTime": "1"}},
		"configmaps/r": {"metadata": map[string]any{"uid": "r1"}, "data": map[string]any{"record.json": string(record)}},
		"deployments/web": {
			"metadata": map[string]any{
				"uid": "u1", "resourceVersion": "1",
				"annotations":   map[string]any{restoreAnnotation: `{"session": "` + session + `"}`, "theirs": "kept"},
				"managedFields": []any{map[string]any{"manager": "towline", "fieldsV1": map[string]any{}}},
			},
			"spec": map[string]any{"replicas": 0.0},
		},
		"deployments/web-towline": {
			"metadata": map[string]any{"uid": "d1", "resourceVersion": "1", "labels": map[string]any{sessionLabel: session}},
			"spec":     map[string]any{"replicas": 1.0},
		},
	}}
}

// watched is a guard with a clock of its own, that has seen the lease once.
func watched(c *cluster) (*Guard, func(time.Duration)) {
	now := time.Now()
	g := New(c, Settings{Record: "r", Lease: "l", GiveBackAfter: 2 * time.Minute, KeepFor: 10 * time.Minute})
	g.now = func() time.Time { return now }
	g.look(context.Background())
	return g, func(d time.Duration) {
		now = now.Add(d)
		g.look(context.Background())
	}
}

func (c *cluster) replicas(name string) int { return replicasOf(c.objects["deployments/"+name]) }

func (c *cluster) renew(to string) {
	c.objects["leases/l"]["spec"].(map[string]any)["renewTime"] = to
}

func TestGivesBackInTwoSteps(t *testing.T) {
	c := taken(t, "seamless")
	_, after := watched(c)
	after(119 * time.Second)
	if c.replicas("web") != 0 {
		t.Fatal("given back too early")
	}
	after(time.Second)
	if c.replicas("web") != 2 || c.replicas("web-towline") != 1 {
		t.Fatal("the original serves, and the dev pod waits")
	}
	if at(c.objects["deployments/web"], "metadata", "annotations", givenBack) == nil {
		t.Fatal("a client that comes back cannot tell")
	}
	after(8 * time.Minute)
	if len(c.objects) != 2 {
		t.Fatalf("left: %v", c.objects)
	}
	annotations := at(c.objects["deployments/web"], "metadata", "annotations")
	if !reflect.DeepEqual(annotations, map[string]any{"theirs": "kept"}) {
		t.Fatalf("annotations: %v", annotations)
	}
}

func TestARenewalStartsTheClockAnew(t *testing.T) {
	c := taken(t, "seamless")
	_, after := watched(c)
	after(119 * time.Second)
	c.renew("2")
	after(time.Second)
	after(119 * time.Second)
	if c.replicas("web") != 0 {
		t.Fatal("given back though it was renewed")
	}
}

func TestTimeWithoutAnAPIServerDoesNotCount(t *testing.T) {
	c := taken(t, "seamless")
	_, after := watched(c)
	c.down = true
	after(5 * time.Minute)
	c.down = false
	after(119 * time.Second)
	if c.replicas("web") != 0 {
		t.Fatal("the laptop could not renew either")
	}
	after(time.Second)
	if c.replicas("web") != 2 {
		t.Fatal("not given back")
	}
}

func TestALaptopThatComesBackAtThatMomentIsFirst(t *testing.T) {
	c := taken(t, "seamless")
	_, after := watched(c)
	c.between = func() {
		c.renew("2")
		c.objects["deployments/web"]["metadata"].(map[string]any)["resourceVersion"] = "the laptop's"
	}
	after(2 * time.Minute)
	after(time.Second)
	if c.replicas("web") != 0 {
		t.Fatal("given back behind the laptop's back")
	}
}

func TestExclusiveStopsTheDevPodFirst(t *testing.T) {
	c := taken(t, "exclusive")
	_, after := watched(c)
	after(2 * time.Minute)
	if c.replicas("web") != 2 || c.replicas("web-towline") != 0 {
		t.Fatal("both would have the claim, or neither")
	}
}

func TestALaptopThatIsBackFirstKeepsItsDevPod(t *testing.T) {
	c := taken(t, "exclusive")
	g, after := watched(c)
	// The lease is old when it is read; then the laptop renews it and starts its pod anew.
	c.between = func() {
		c.renew("2")
		metadata := c.objects["deployments/web-towline"]["metadata"].(map[string]any)
		metadata["resourceVersion"] = "written"
	}
	after(2 * time.Minute)
	if c.replicas("web") != 0 || c.replicas("web-towline") != 1 || g.gaveBack {
		t.Fatal("the pod is stopped that the laptop has started")
	}
}

func TestWhatIsNotOursIsLeft(t *testing.T) {
	for name, change := range map[string]func(*cluster){
		"another session holds it": func(c *cluster) {
			c.objects["deployments/web"]["metadata"].(map[string]any)["annotations"] = map[string]any{restoreAnnotation: `{"session": "ffffffff"}`}
		},
		"made anew":          func(c *cluster) { c.objects["deployments/web"]["metadata"].(map[string]any)["uid"] = "u2" },
		"scaled by somebody": func(c *cluster) { c.objects["deployments/web"]["spec"].(map[string]any)["replicas"] = 5.0 },
	} {
		t.Run(name, func(t *testing.T) {
			c := taken(t, "seamless")
			change(c)
			before := c.replicas("web")
			_, after := watched(c)
			after(2 * time.Minute)
			after(8 * time.Minute)
			if c.replicas("web") != before {
				t.Error("changed")
			}
			if _, there := c.objects["configmaps/r"]; there {
				t.Error("the session stays")
			}
		})
	}
}

// kept is a namespace with a session whose original is kept.
func kept(t *testing.T) *cluster {
	t.Helper()
	c := taken(t, "seamless")
	record, err := json.Marshal(map[string]any{
		"schema": 1, "session": session, "kind": "Deployment", "workload": "web", "workload_uid": "u1",
		"replicas": 2, "handover": "seamless", "original": "keep", "names": map[string]any{"dev_workload": "web-towline"},
		"actions": []any{map[string]any{"kind": "point-service", "name": "web", "values": map[string]any{
			"uid": "s1", "selector": map[string]any{"app": "web"}, "managers": []any{},
		}}},
		"managed_fields": []any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.objects["configmaps/r"]["data"] = map[string]any{"record.json": string(record)}
	c.objects["deployments/web"]["spec"] = map[string]any{"replicas": 2.0}
	c.objects["deployments/web-towline"]["status"] = map[string]any{"readyReplicas": 1.0}
	c.objects["services/web"] = kube.Object{
		"metadata": map[string]any{"uid": "s1", "resourceVersion": "1"},
		"spec":     map[string]any{"selector": map[string]any{sessionLabel: session}},
	}
	return c
}

// keeping is `watched` for such a session.
func keeping(c *cluster) (*Guard, func(time.Duration)) {
	g, after := watched(c)
	g.settings.OriginalIsKept = true
	return g, after
}

func (c *cluster) selector() any { return at(c.objects["services/web"], "spec", "selector") }

func TestAServiceIsPointedBackInTwoSteps(t *testing.T) {
	c := kept(t)
	_, after := keeping(c)
	after(119 * time.Second)
	if !reflect.DeepEqual(c.selector(), map[string]any{sessionLabel: session}) {
		t.Fatal("pointed back too early")
	}
	after(time.Second)
	if !reflect.DeepEqual(c.selector(), map[string]any{"app": "web"}) {
		t.Fatalf("selector: %v", c.selector())
	}
	if c.replicas("web") != 2 || c.replicas("web-towline") != 1 {
		t.Fatal("the original was not ours to scale, and the dev pod waits")
	}
	after(8 * time.Minute)
	if len(c.objects) != 3 {
		t.Fatalf("left: %v", c.objects)
	}
}

func TestAServiceWhoseDevPodIsGoneIsPointedBack(t *testing.T) {
	c := kept(t)
	_, after := keeping(c)
	c.objects["deployments/web-towline"]["status"] = map[string]any{}
	after(2 * time.Second)
	if !reflect.DeepEqual(c.selector(), map[string]any{sessionLabel: session}) {
		t.Fatal("at the first look it may be the status that is late")
	}
	after(2 * time.Second)
	if !reflect.DeepEqual(c.selector(), map[string]any{"app": "web"}) {
		t.Fatalf("selector: %v", c.selector())
	}
}

func TestAServiceThatSomebodyPointedElsewhereIsLeft(t *testing.T) {
	for name, change := range map[string]func(*cluster){
		"pointed elsewhere": func(c *cluster) {
			c.objects["services/web"]["spec"] = map[string]any{"selector": map[string]any{"app": "theirs"}}
		},
		"made anew": func(c *cluster) { c.objects["services/web"]["metadata"].(map[string]any)["uid"] = "s2" },
		"deleted":   func(c *cluster) { delete(c.objects, "services/web") },
	} {
		t.Run(name, func(t *testing.T) {
			c := kept(t)
			change(c)
			before := c.selector()
			_, after := keeping(c)
			after(2 * time.Minute)
			after(8 * time.Minute)
			if !reflect.DeepEqual(c.selector(), before) {
				t.Errorf("selector: %v", c.selector())
			}
			if _, there := c.objects["configmaps/r"]; there {
				t.Error("the session stays")
			}
		})
	}
}
