// Package guard gives a service back when the laptop that took it is gone.
//
// It runs in a pod of its own, with a service account that may touch the session's
// objects by name and nothing else. It judges a lease by how long it has not changed on
// the guard's own clock: nobody's clock is compared with another's.
package guard

import (
	"context"
	"fmt"
	"log"
	"time"

	"towline.dev/agent/internal/kube"
)

// API is what the guard needs of Kubernetes.
type API interface {
	Get(ctx context.Context, resource, name string) (kube.Object, error)
	Patch(ctx context.Context, resource, name string, patch kube.Object) (kube.Object, error)
	Delete(ctx context.Context, resource, name, uid string) error
}

// Settings of one guard.
type Settings struct {
	// Record and Lease are the names of the session's ConfigMap and Lease.
	Record, Lease string
	// GiveBackAfter the lease's last change the original serves again; KeepFor after
	// it all of the session goes.
	GiveBackAfter, KeepFor time.Duration
	// OriginalIsKept: the original is up, and Services lead to the dev pod instead. They
	// are pointed back, too, when that is not ready.
	OriginalIsKept bool
}

const (
	// looks at the lease in GiveBackAfter, so that it is at most a twelfth late.
	looks       = 12
	lookAtLeast = time.Second
	lookAtMost  = 10 * time.Second
	// lookKept: a Service that leads to a dev pod which is gone has nobody else to see it.
	lookKept = 2 * time.Second
)

// Guard watches one session.
type Guard struct {
	api      API
	settings Settings
	now      func() time.Time

	renewed  string
	changed  time.Time
	gaveBack bool
	// notReady: the dev pod was not at the look before.
	notReady  bool
	lastError string
}

// New makes a guard whose clock starts now.
func New(api API, settings Settings) *Guard {
	return &Guard{api: api, settings: settings, now: time.Now, changed: time.Now()}
}

// Run looks at the lease until ctx ends, or all is given back: then the session's
// record is gone, and the garbage collector comes for the guard, too.
func (g *Guard) Run(ctx context.Context) {
	every := min(max(g.settings.GiveBackAfter/looks, lookAtLeast), lookAtMost)
	if g.settings.OriginalIsKept {
		every = min(every, lookKept)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		g.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// look acts on what the lease says now. What fails is tried again at the next look.
func (g *Guard) look(ctx context.Context) {
	lease, err := g.api.Get(ctx, "leases", g.settings.Lease)
	if err != nil && !kube.IsCode(err, 404) {
		// While nobody reaches the API server the laptop cannot renew either: it gets
		// its whole time again.
		g.changed = g.now()
		g.tell(err)
		return
	}
	if g.settings.OriginalIsKept {
		g.tell(g.seeDevPod(ctx))
	}
	if renewed, _ := at(lease, "spec", "renewTime").(string); err == nil && renewed != g.renewed {
		if g.renewed != "" && g.gaveBack {
			log.Print("the laptop is back")
		}
		g.renewed, g.changed, g.gaveBack = renewed, g.now(), false
		return
	}
	silent := g.now().Sub(g.changed)
	switch {
	case silent >= g.settings.KeepFor:
		g.tell(g.endSession(ctx))
	case silent >= g.settings.GiveBackAfter && !g.gaveBack:
		g.tell(g.giveBack(ctx))
	}
}

// tell logs an error once, not at every look.
func (g *Guard) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != g.lastError {
		log.Print(text)
	}
	g.lastError = text
}

// giveBack lets the original serve; dev pod and line stay for a laptop that comes back.
//
// The original, and a dev workload that has to stop for it, are patched under the
// resourceVersion that was read before the lease was read once more. A laptop that comes
// back first renews its lease and then changes both: whichever is first, the other sees it.
func (g *Guard) giveBack(ctx context.Context) error {
	record, err := readRecord(ctx, g.api, g.settings.Record)
	if err != nil || record == nil {
		return err
	}
	original, err := g.original(ctx, record)
	if err != nil || original == nil {
		return err
	}
	var dev kube.Object
	if record.Handover == "exclusive" {
		// What they have in common is free only when the dev pod is gone.
		if dev, err = g.devWorkload(ctx, record); err != nil {
			return err
		}
	}
	if lease, err := g.api.Get(ctx, "leases", g.settings.Lease); err == nil {
		if renewed, _ := at(lease, "spec", "renewTime").(string); renewed != g.renewed {
			return nil
		}
	}
	if record.isKept() {
		if err := g.pointBack(ctx, record, false); err != nil {
			return err
		}
		g.gaveBack = true
		return nil
	}
	if record.holds(original) && replicasOf(original) == 0 && record.Replicas > 0 {
		if dev != nil {
			patch := kube.Object{"metadata": lockOn(dev), "spec": kube.Object{"replicas": 0}}
			if _, err := g.api.Patch(ctx, "deployments", record.Names.DevWorkload, patch); err != nil {
				return fmt.Errorf("stop the dev pod: %w", err)
			}
		}
		patch := kube.Object{
			"metadata": kube.Object{
				"uid": record.WorkloadUID, "resourceVersion": at(original, "metadata", "resourceVersion"),
				"annotations": kube.Object{givenBack: g.now().UTC().Format(time.RFC3339)},
			},
			"spec": kube.Object{"replicas": record.Replicas},
		}
		if _, err := g.api.Patch(ctx, record.resource(), record.Workload, patch); err != nil {
			return fmt.Errorf("give back %s: %w", record.Workload, err)
		}
		log.Printf("nothing from the laptop for %s: %s %s is back at %d", g.settings.GiveBackAfter, record.Kind, record.Workload, record.Replicas)
	}
	g.gaveBack = true
	return nil
}

// devWorkload is the session's dev workload; nil where there is none of its own.
func (g *Guard) devWorkload(ctx context.Context, record *record) (kube.Object, error) {
	found, err := g.api.Get(ctx, "deployments", record.Names.DevWorkload)
	if kube.IsCode(err, 404) || err == nil && !record.owns(found) {
		return nil, nil
	}
	return found, err
}

// endSession removes all of the session; the record last, with what it owns.
func (g *Guard) endSession(ctx context.Context) error {
	if !g.gaveBack {
		if err := g.giveBack(ctx); err != nil || !g.gaveBack {
			return err
		}
	}
	record, err := readRecord(ctx, g.api, g.settings.Record)
	if err != nil || record == nil {
		return err
	}
	if record.isKept() {
		if err := g.pointBack(ctx, record, true); err != nil {
			return err
		}
	}
	dev, err := g.devWorkload(ctx, record)
	if err != nil {
		return err
	}
	if dev != nil {
		uid, _ := at(dev, "metadata", "uid").(string)
		if err := g.api.Delete(ctx, "deployments", record.Names.DevWorkload, uid); err != nil {
			return err
		}
	}
	if err := g.putBack(ctx, record); err != nil {
		return err
	}
	log.Printf("nothing from the laptop for %s: the session ends", g.settings.KeepFor)
	return g.api.Delete(ctx, "configmaps", g.settings.Record, record.uid)
}

// seeDevPod points the Services back when the dev pod was not ready at two looks: the
// client, which waits for it to be ready, writes a moment before its workload's status
// may be seen here.
func (g *Guard) seeDevPod(ctx context.Context) error {
	record, err := readRecord(ctx, g.api, g.settings.Record)
	if err != nil || record == nil {
		return err
	}
	dev, err := g.api.Get(ctx, "deployments", record.Names.DevWorkload)
	if err != nil && !kube.IsCode(err, 404) {
		return err
	}
	ready, _ := at(dev, "status", "readyReplicas").(float64)
	was := g.notReady
	g.notReady = ready == 0
	if !was || !g.notReady {
		return nil
	}
	return g.pointBack(ctx, record, false)
}

// pointBack gives the Services their selectors again, where they are still ours; with
// handOver also to those who owned the selectors.
func (g *Guard) pointBack(ctx context.Context, record *record, handOver bool) error {
	for _, service := range record.services() {
		found, err := g.api.Get(ctx, "services", service.name)
		if kube.IsCode(err, 404) {
			continue
		}
		if err != nil {
			return err
		}
		if at(found, "metadata", "uid") != service.uid {
			continue
		}
		selector, _ := at(found, "spec", "selector").(map[string]any)
		if len(selector) == 1 && selector[sessionLabel] == record.Session {
			back := kube.Object{sessionLabel: nil}
			for key, value := range service.selector {
				back[key] = value
			}
			patch := kube.Object{"metadata": lockOn(found), "spec": kube.Object{"selector": back}}
			if found, err = g.api.Patch(ctx, "services", service.name, patch); err != nil {
				return fmt.Errorf("point %s back: %w", service.name, err)
			}
			log.Printf("Service %s leads to %s %s again", service.name, record.Kind, record.Workload)
		}
		if handOver {
			if err := g.handOver(ctx, service, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// handOver gives a selector that is as before to those who owned it.
func (g *Guard) handOver(ctx context.Context, service pointed, found kube.Object) error {
	live, _ := at(found, "metadata", "managedFields").([]any)
	var paths [][]string
	if isOurs(live, selectorPath) && isAsBefore(found, service) {
		paths = append(paths, selectorPath)
	}
	metadata := lockOn(found)
	metadata["managedFields"] = managersPutBack(live, service.managers, paths)
	if _, err := g.api.Patch(ctx, "services", service.name, kube.Object{"metadata": metadata}); err != nil {
		return fmt.Errorf("take the marks off %s: %w", service.name, err)
	}
	return nil
}

func isAsBefore(found kube.Object, service pointed) bool {
	selector, _ := at(found, "spec", "selector").(map[string]any)
	if len(selector) != len(service.selector) {
		return false
	}
	for key, value := range service.selector {
		if selector[key] != value {
			return false
		}
	}
	return true
}

// lockOn is the metadata of a patch for this very object as it was read.
func lockOn(found kube.Object) kube.Object {
	return kube.Object{"uid": at(found, "metadata", "uid"), "resourceVersion": at(found, "metadata", "resourceVersion")}
}

// putBack takes the session's marks off the original: its annotations, what was done to
// its claims' retention, and who owns which field.
func (g *Guard) putBack(ctx context.Context, record *record) error {
	original, err := g.original(ctx, record)
	if err != nil || original == nil || !record.holds(original) {
		return err
	}
	if record.retention() != "" {
		if original, err = g.putBackRetention(ctx, record, original); err != nil {
			return err
		}
	}
	live, _ := at(original, "metadata", "managedFields").([]any)
	patch := kube.Object{"metadata": kube.Object{
		"uid": record.WorkloadUID, "resourceVersion": at(original, "metadata", "resourceVersion"),
		"annotations":   kube.Object{restoreAnnotation: nil, givenBack: nil},
		"managedFields": managersPutBack(live, record.ManagedFields, ourPaths(original, record, live)),
	}}
	if _, err := g.api.Patch(ctx, record.resource(), record.Workload, patch); err != nil {
		return fmt.Errorf("take the marks off %s: %w", record.Workload, err)
	}
	return nil
}

func (g *Guard) putBackRetention(ctx context.Context, record *record, original kube.Object) (kube.Object, error) {
	const policy, when = "persistentVolumeClaimRetentionPolicy", "whenScaled"
	// The claims of pods that are not to be there would be deleted at once.
	if at(original, "spec", policy, when) != "Retain" || replicasOf(original) < record.Replicas {
		return original, nil
	}
	patch := kube.Object{
		"metadata": kube.Object{"uid": record.WorkloadUID, "resourceVersion": at(original, "metadata", "resourceVersion")},
		"spec":     kube.Object{policy: kube.Object{when: record.retention()}},
	}
	changed, err := g.api.Patch(ctx, record.resource(), record.Workload, patch)
	if err != nil {
		return nil, fmt.Errorf("put back the claim retention of %s: %w", record.Workload, err)
	}
	return changed, nil
}

// original is the workload that was taken over; nil when it is gone or another one.
func (g *Guard) original(ctx context.Context, record *record) (kube.Object, error) {
	found, err := g.api.Get(ctx, record.resource(), record.Workload)
	if kube.IsCode(err, 404) {
		g.gaveBack = true
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if at(found, "metadata", "uid") != record.WorkloadUID {
		g.gaveBack = true
		return nil, nil
	}
	return found, nil
}
