package kubernetes

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// complain takes what is wrong with a rendering.
type complain func(format string, args ...any)

// checks are the rules that every rendering keeps, by name.
func checks() map[string]func(*rendering, complain) {
	return map[string]func(*rendering, complain){
		"names":      uniqueNames,
		"selectors":  selectors,
		"services":   servicesLead,
		"budgets":    budgets,
		"monitors":   monitors,
		"probes":     probes,
		"security":   security,
		"volumes":    volumes,
		"data":       dataStays,
		"stops":      stops,
		"images":     images,
		"resources":  resources,
		"variables":  variables,
		"references": references,
		"secured":    secured,
		"monitored":  monitored,
		"secrets":    secrets,
		"issued":     issuedFor,
		"certified":  certified,
		"addresses":  addresses,
		"replicas":   oneProcessToAStore,
	}
}

func TestChecks(t *testing.T) {
	for _, dir := range directories() {
		r := render(t, dir)
		for name, check := range checks() {
			check(r, func(format string, args ...any) { t.Errorf("%s: %s: %s", dir, name, fmt.Sprintf(format, args...)) })
		}
	}
}

func uniqueNames(r *rendering, no complain) {
	names := slices.Clone(r.names)
	slices.Sort(names)
	if unique := slices.Compact(slices.Clone(names)); len(unique) != len(names) {
		no("an object is there twice: %v", names)
	}
}

// matches tells whether a selector of labels, which must not be empty, takes them.
func matches(selector *metav1.LabelSelector, of map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && !s.Empty() && s.Matches(labels.Set(of))
}

// selected are the workloads whose pods a selector takes.
func (r *rendering) selected(namespace string, selector *metav1.LabelSelector) []*workload {
	var taken []*workload
	for _, w := range r.workloads {
		if w.Namespace == namespace && matches(selector, w.template.Labels) {
			taken = append(taken, w)
		}
	}
	return taken
}

func selectors(r *rendering, no complain) {
	for _, w := range r.workloads {
		if taken := r.selected(w.Namespace, w.selector); len(taken) != 1 || taken[0] != w {
			no("%s selects the pods of %d workloads, want its own", w.Name, len(taken))
		}
		for _, c := range w.pod().TopologySpreadConstraints {
			if !matches(c.LabelSelector, w.template.Labels) {
				no("%s: a spread by %s is not of its own pods", w.Name, c.TopologyKey)
			}
		}
		for _, claim := range w.claims {
			if !maps.Equal(claim.Labels, w.Labels) {
				no("%s: the labels of the volume %s are %v", w.Name, claim.Name, claim.Labels)
			}
		}
		if w.serviceName == "" {
			continue
		}
		i := slices.IndexFunc(r.services, func(s *corev1.Service) bool { return s.Name == w.serviceName && s.Namespace == w.Namespace })
		switch {
		case i < 0:
			no("%s: the Service %s, which names its pods, is not there", w.Name, w.serviceName)
		case r.services[i].Spec.ClusterIP != corev1.ClusterIPNone || !r.services[i].Spec.PublishNotReadyAddresses:
			no("%s: the Service %s has to name each of its pods, also one that is not ready", w.Name, w.serviceName)
		case !matches(&metav1.LabelSelector{MatchLabels: r.services[i].Spec.Selector}, w.template.Labels):
			no("%s: the Service %s names other pods", w.Name, w.serviceName)
		}
	}
}

// port finds a port of a container by its name or number.
func port(c *corev1.Container, target intstr.IntOrString) (int32, bool) {
	for _, p := range c.Ports {
		if target == intstr.FromString(p.Name) || target == intstr.FromInt32(p.ContainerPort) {
			return p.ContainerPort, true
		}
	}
	return 0, false
}

func servicesLead(r *rendering, no complain) {
	for _, s := range r.services {
		taken := r.selected(s.Namespace, &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
		if len(taken) != 1 {
			no("the Service %s leads to %d workloads, want 1", s.Name, len(taken))
			continue
		}
		for _, p := range s.Spec.Ports {
			got, found := port(&taken[0].pod().Containers[0], p.TargetPort)
			if !found || got != p.Port {
				no("the Service %s: its port %d leads to %s, which is %d", s.Name, p.Port, p.TargetPort.String(), got)
			}
		}
	}
}

func budgets(r *rendering, no complain) {
	covered := map[string]int{}
	for _, b := range r.budgets {
		taken := r.selected(b.Namespace, b.Spec.Selector)
		if len(taken) != 1 {
			no("the budget %s is for %d workloads, want 1", b.Name, len(taken))
		}
		for _, w := range taken {
			covered[w.Name]++
		}
		if b.Spec.MinAvailable != nil || b.Spec.MaxUnavailable == nil || *b.Spec.MaxUnavailable != intstr.FromInt32(1) {
			no("the budget %s lets go of other than one at a time", b.Name)
		}
	}
	for _, w := range r.workloads {
		if w.serviceName != "" && covered[w.Name] != 1 {
			no("%s has %d budgets, want 1", w.Name, covered[w.Name])
		}
	}
}

func monitors(r *rendering, no complain) {
	for _, m := range r.monitors {
		var found []*corev1.Service
		for _, s := range r.services {
			if s.Namespace == m.Namespace && matches(&m.Spec.Selector, s.Labels) {
				found = append(found, s)
			}
		}
		if len(found) != 1 || found[0].Spec.ClusterIP != corev1.ClusterIPNone {
			no("the monitor %s finds %d Services, want the one that names all pods", m.Name, len(found))
			continue
		}
		for _, e := range m.Spec.Endpoints {
			if !slices.ContainsFunc(found[0].Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == e.Port && p.Name == "http" }) {
				no("the monitor %s: no metrics at the port %q", m.Name, e.Port)
			}
		}
	}
}

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

// security: what the Pod Security Standard "restricted" asks for, a root that
// cannot be written, and no word with Kubernetes.
func security(r *rendering, no complain) {
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	for _, w := range r.workloads {
		p := w.pod()
		s := p.SecurityContext
		if s == nil || !is(s.RunAsNonRoot, true) || s.RunAsUser == nil || *s.RunAsUser != 65532 || s.RunAsGroup == nil || *s.RunAsGroup != 65532 ||
			s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			no("%s: its pods may be more than 65532 has to be", w.Name)
			continue
		}
		if p.HostNetwork || p.HostPID || p.HostIPC || slices.ContainsFunc(p.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil }) {
			no("%s: its pods share something with the node", w.Name)
		}
		if !is(p.AutomountServiceAccountToken, false) || !is(p.EnableServiceLinks, false) {
			no("%s: its pods are given a token or variables of Services", w.Name)
		}
		if len(w.claims) > 0 && (s.FSGroup == nil || *s.FSGroup != 65532) {
			no("%s: its volumes belong to somebody else", w.Name)
		}
		for _, c := range w.containers() {
			s := c.SecurityContext
			if s == nil || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) || s.Privileged != nil || s.RunAsUser != nil ||
				s.RunAsNonRoot != nil || s.SeccompProfile != nil ||
				s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
				no("%s/%s may do more than it has to", w.Name, c.Name)
			}
		}
	}
}

// env is the value of a variable, as it is written.
func env(c *corev1.Container, name string) string {
	for _, v := range c.Env {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
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

func images(r *rendering, no complain) {
	for _, w := range r.workloads {
		for _, c := range w.containers() {
			name, tag, _ := strings.Cut(c.Image, ":")
			if tag == "" || tag == "latest" || c.Name != name[strings.LastIndexByte(name, '/')+1:] {
				no("%s/%s runs %q", w.Name, c.Name, c.Image)
			}
		}
	}
}

func resources(r *rendering, no complain) {
	for _, w := range r.workloads {
		for _, c := range w.containers() {
			requests, limits := c.Resources.Requests, c.Resources.Limits
			if requests.Cpu().IsZero() || requests.Memory().IsZero() || limits.Memory().Cmp(*requests.Memory()) <= 0 {
				no("%s/%s: its requests are %v, its limits %v", w.Name, c.Name, requests, limits)
			}
			if _, limited := limits[corev1.ResourceCPU]; limited {
				no("%s/%s is throttled", w.Name, c.Name)
			}
			i := slices.IndexFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == "GOMEMLIMIT" })
			if !ours(c) {
				continue
			}
			if i < 0 || c.Env[i].ValueFrom == nil || c.Env[i].ValueFrom.ResourceFieldRef == nil || c.Env[i].ValueFrom.ResourceFieldRef.Resource != "requests.memory" {
				no("%s/%s: Go is not told how much memory it has", w.Name, c.Name)
			}
		}
	}
}

// ours tells whether a container runs a program of Rollcall.
func ours(c *corev1.Container) bool {
	return slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool { return strings.HasPrefix(v.Name, "ROLLCALL_") })
}

var reference = regexp.MustCompile(`\$\(([^)]*)\)`)

// variables are set once, before they are used.
func variables(r *rendering, no complain) {
	for _, w := range r.workloads {
		for _, c := range w.containers() {
			set := map[string]bool{}
			for _, v := range c.Env {
				for _, use := range reference.FindAllStringSubmatch(v.Value, -1) {
					if !set[use[1]] {
						no("%s: %s uses %s, which is not set before it", c.Name, v.Name, use[0])
					}
				}
				if set[v.Name] || (v.Value == "") == (v.ValueFrom == nil) {
					no("%s: %s is set twice, or to nothing", c.Name, v.Name)
				}
				set[v.Name] = true
			}
		}
	}
}

// references lead to what is there.
func references(r *rendering, no complain) {
	for _, w := range r.workloads {
		if name := w.pod().ServiceAccountName; name != "" {
			i := slices.IndexFunc(r.accounts, func(a *corev1.ServiceAccount) bool { return a.Name == name && a.Namespace == w.Namespace })
			if i < 0 || r.accounts[i].AutomountServiceAccountToken == nil || *r.accounts[i].AutomountServiceAccountToken {
				no("%s: its account %s is not there, or has its token mounted", w.Name, name)
			}
		} else if w.serviceName != "" {
			no("%s has no account of its own", w.Name)
		}
		for _, c := range w.containers() {
			for _, from := range c.EnvFrom {
				if from.ConfigMapRef == nil || !slices.ContainsFunc(r.configs, func(m *corev1.ConfigMap) bool {
					return m.Name == from.ConfigMapRef.Name && m.Namespace == w.Namespace
				}) {
					no("%s: its variables come from what is not there", c.Name)
				}
			}
		}
	}
}

// addresses that processes are told lead to a Service with that port; those that
// they tell others name their own pod.
func addresses(r *rendering, no complain) {
	for _, w := range r.workloads {
		for _, c := range w.containers() {
			for _, name := range []string{"ROLLCALL_ADVERTISE", "ROLLCALL_ADVERTISE_HTTP"} {
				if address := env(c, name); address != "" {
					pod, rest, _ := strings.Cut(address, ".")
					own := slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool {
						return "$("+v.Name+")" == pod && v.ValueFrom != nil && v.ValueFrom.FieldRef != nil && v.ValueFrom.FieldRef.FieldPath == "metadata.name"
					})
					service, rest, _ := strings.Cut(rest, ".")
					host, number, err := net.SplitHostPort(rest)
					listen := env(c, map[string]string{"ROLLCALL_ADVERTISE": "ROLLCALL_LISTEN", "ROLLCALL_ADVERTISE_HTTP": "ROLLCALL_HTTP_LISTEN"}[name])
					if err != nil || !own || service != w.serviceName || host != "$(POD_NAMESPACE).svc" || listen != ":"+number {
						no("%s: %s is %s, listening on %s, named by %s", c.Name, name, address, listen, w.serviceName)
					}
				}
			}
			for address := range strings.SplitSeq(env(c, "ROLLCALL_REGISTRY"), ",") {
				if address != "" && w.serviceName != "" && !r.served(w.Namespace, address) {
					no("%s: no Service is at %s", c.Name, address)
				}
			}
			for flag, name := range map[string]string{"ROLLCALL_LISTEN": "grpc", "ROLLCALL_HTTP_LISTEN": "http"} {
				if listen := env(c, flag); listen != "" && !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
					return listen == fmt.Sprintf(":%d", p.ContainerPort) && strings.HasSuffix(p.Name, name)
				}) {
					no("%s: %s is %s, which is no port %s of it", c.Name, flag, listen, name)
				}
			}
		}
	}
}

// served tells whether a Service of registries has this address.
func (r *rendering) served(namespace, address string) bool {
	return slices.ContainsFunc(r.services, func(s *corev1.Service) bool {
		return s.Namespace == namespace && s.Labels["app.kubernetes.io/name"] == "registry" &&
			slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
				return p.Name == "grpc" && address == fmt.Sprintf("%s:%d", s.Name, p.Port)
			})
	})
}

// oneProcessToAStore: a registry with a store of its own is alone.
func oneProcessToAStore(r *rendering, no complain) {
	for _, w := range r.workloads {
		for _, c := range w.containers() {
			if c.Name != "registry" {
				continue
			}
			embedded := env(c, "ROLLCALL_DATA_DIR") != ""
			if external := len(c.EnvFrom) > 0; embedded == external || embedded == (w.replicas > 1) {
				no("%d registries; a store of their own: %t, an etcd: %t", w.replicas, embedded, external)
			}
		}
	}
}
