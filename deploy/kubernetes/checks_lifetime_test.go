package kubernetes

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// probes of a server: all three, over HTTP, and what kills it depends on the
// process alone and is more patient than what takes it out of service.
func probes(r *rendering, no complain) {
	for _, w := range r.workloads {
		for _, c := range w.containers() {
			for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe, "/healthz (startup)": c.StartupProbe} {
				if probe == nil {
					if w.serviceName != "" {
						no("%s has no probe %s", c.Name, path)
					}
					continue
				}
				want, _, _ := strings.Cut(path, " ")
				if probe.HTTPGet == nil || probe.HTTPGet.Path != want {
					no("%s: its probe %s asks something else", c.Name, path)
				} else if _, found := port(c, probe.HTTPGet.Port); !found || !strings.HasSuffix(probe.HTTPGet.Port.StrVal, "http") {
					no("%s: its probe %s asks at the port %s", c.Name, path, probe.HTTPGet.Port.String())
				}
				if probe.TimeoutSeconds > probe.PeriodSeconds {
					no("%s: its probe %s takes longer than its period", c.Name, path)
				}
			}
			if w.serviceName == "" || c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil {
				continue
			}
			live, ready := patience(c.LivenessProbe), patience(c.ReadinessProbe)
			if live < time.Minute || live <= ready || patience(c.StartupProbe) < 5*time.Minute {
				no("%s: killed after %v, taken out of service after %v, may start for %v", c.Name, live, ready, patience(c.StartupProbe))
			}
		}
	}
}

func patience(p *corev1.Probe) time.Duration {
	return time.Duration(p.PeriodSeconds*p.FailureThreshold) * time.Second
}

func volumes(r *rendering, no complain) {
	for _, w := range r.workloads {
		var there []string
		for _, v := range w.pod().Volumes {
			there = append(there, v.Name)
		}
		for _, claim := range w.claims {
			there = append(there, claim.Name)
		}
		for _, c := range w.containers() {
			for _, m := range c.VolumeMounts {
				if !slices.Contains(there, m.Name) {
					no("%s/%s mounts %s, which is not there", w.Name, c.Name, m.Name)
				}
			}
			for _, v := range c.Env { // files that a variable names
				if strings.HasPrefix(v.Value, "/") && !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
					return v.Value == m.MountPath || strings.HasPrefix(v.Value, m.MountPath+"/")
				}) {
					no("%s/%s: %s is %s, where nothing is mounted", w.Name, c.Name, v.Name, v.Value)
				}
			}
		}
	}
}

// dataStays: what has a data directory keeps it when its pod is replaced, and
// the bounds that the process has leave room on the volume.
func dataStays(r *rendering, no complain) {
	for _, w := range r.workloads {
		for _, c := range w.containers() {
			dir := env(c, "ROLLCALL_DATA_DIR")
			if dir == "" {
				continue
			}
			i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == dir && !m.ReadOnly })
			j := -1
			if i >= 0 {
				j = slices.IndexFunc(w.claims, func(claim corev1.PersistentVolumeClaim) bool { return claim.Name == c.VolumeMounts[i].Name })
			}
			if j < 0 {
				no("%s/%s: %s is gone with the pod", w.Name, c.Name, dir)
				continue
			}
			storage := w.claims[j].Spec.Resources.Requests.Storage().Value()
			quota, _ := strconv.ParseInt(env(c, "ROLLCALL_STORE_QUOTA_BYTES"), 10, 64)
			samples, _ := strconv.ParseInt(env(c, "ROLLCALL_RETENTION_BYTES"), 10, 64)
			if quota == 0 == (samples == 0) {
				no("%s/%s: nothing bounds what is in %s", w.Name, c.Name, dir)
			}
			if need := max(3*quota, samples+samples/10+queueBytes); need > storage {
				no("%s/%s: up to %d bytes on a volume of %d", w.Name, c.Name, need, storage)
			}
		}
	}
}

// queueBytes is what a collector's queue takes at most, unless its configuration
// says otherwise.
const queueBytes = 1 << 30

// closing is how long a process may take to close its store, beyond --stop-grace.
func closing(c *corev1.Container) time.Duration {
	return map[string]time.Duration{"registry": 10 * time.Second, "collector": 30 * time.Second}[c.Name]
}

// stopGrace is the default of --stop-grace.
const stopGrace = 10 * time.Second

// preStop is how long a container's hook may take.
func preStop(c *corev1.Container) (time.Duration, error) {
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
		return 0, nil
	}
	hook := c.Lifecycle.PreStop
	switch {
	case hook.Sleep != nil:
		return time.Duration(hook.Sleep.Seconds) * time.Second, nil
	case hook.Exec != nil && len(hook.Exec.Command) == 3 && hook.Exec.Command[0] == "/"+c.Name && hook.Exec.Command[1] == "drain":
		timeout, ok := strings.CutPrefix(hook.Exec.Command[2], "--timeout=")
		if !ok {
			return 0, fmt.Errorf("%s: want a timeout", hook.Exec.Command)
		}
		return time.ParseDuration(timeout)
	default:
		return 0, fmt.Errorf("%v is no hook that is known here", hook)
	}
}

func stops(r *rendering, no complain) {
	for _, w := range r.workloads {
		for _, c := range w.containers() {
			hook, err := preStop(c)
			if err != nil {
				no("%s: %v", c.Name, err)
			}
			if c.Name == "collector" && hook < time.Minute {
				no("a collector is drained for %v before it stops", hook)
			}
			need := hook + stopGrace + closing(c)
			if seconds := w.pod().TerminationGracePeriodSeconds; seconds == nil || time.Duration(*seconds)*time.Second <= need {
				no("%s may take %v to stop, and is not given as much", c.Name, need)
			}
		}
	}
}
