package kubernetes

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

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
