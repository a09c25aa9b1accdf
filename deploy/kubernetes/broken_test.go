package kubernetes

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// container is the first container of a workload.
func (r *rendering) container(name string) *corev1.Container {
	return &r.workload(name).pod().Containers[0]
}

// set gives a variable of a container another value.
func set(c *corev1.Container, name, value string) {
	i := slices.IndexFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == name })
	if i < 0 {
		panic("no variable " + name)
	}
	c.Env[i] = corev1.EnvVar{Name: name, Value: value}
}

// unset takes a variable away.
func unset(c *corev1.Container, name string) {
	c.Env = slices.DeleteFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == name })
}

// service finds one by its name.
func (r *rendering) service(name string) *corev1.Service {
	return r.services[slices.IndexFunc(r.services, func(s *corev1.Service) bool { return s.Name == name })]
}

// policy finds one by its name.
func (r *rendering) policy(name string) *networkingv1.NetworkPolicySpec {
	return &r.policies[slices.IndexFunc(r.policies, func(p *networkingv1.NetworkPolicy) bool { return p.Name == name })].Spec
}

// A breakage is something wrong that a check has to complain of.
type breakage struct {
	check, name string
	inflict     func(*rendering)
}

// breakages of what an overlay over an etcd says, with monitors.
func breakages() []breakage {
	yes := true
	return []breakage{
		{"names", "twice", func(r *rendering) { r.names = append(r.names, r.names[0]) }},
		{"selectors", "another label", func(r *rendering) { r.workload("collector").template.Labels = map[string]string{"app": "x"} }},
		{"selectors", "all pods", func(r *rendering) { r.workload("collector").selector = &metav1.LabelSelector{} }},
		{"selectors", "pods of both", func(r *rendering) {
			r.workload("collector").selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/part-of": "rollcall"}}
		}},
		{"selectors", "spread", func(r *rendering) {
			r.workload("registry").pod().TopologySpreadConstraints[0].LabelSelector = r.workload("collector").selector
		}},
		{"selectors", "no such Service", func(r *rendering) { r.workload("registry").serviceName = "registrys" }},
		{"selectors", "not headless", func(r *rendering) { r.workload("registry").serviceName = "registry" }},
		{"selectors", "names of others", func(r *rendering) { r.workload("registry").serviceName = "collectors" }},
		{"selectors", "no name before it is ready", func(r *rendering) { r.service("collectors").Spec.PublishNotReadyAddresses = false }},
		{"services", "leads nowhere", func(r *rendering) { r.service("collector").Spec.Selector = map[string]string{"app": "x"} }},
		{"services", "leads everywhere", func(r *rendering) { r.service("collector").Spec.Selector = nil }},
		{"services", "no such port", func(r *rendering) { r.service("collector").Spec.Ports[1].TargetPort = intstr.FromString("web") }},
		{"services", "the other port", func(r *rendering) { r.service("collector").Spec.Ports[1].TargetPort = intstr.FromString("grpc") }},
		{"budgets", "for nobody", func(r *rendering) { r.budgets[0].Spec.Selector.MatchLabels = map[string]string{"app": "x"} }},
		{"budgets", "for everybody", func(r *rendering) {
			r.budgets[0].Spec.Selector.MatchLabels = map[string]string{"app.kubernetes.io/part-of": "rollcall"}
		}},
		{"budgets", "none", func(r *rendering) { r.budgets = r.budgets[:1] }},
		{"budgets", "blocks a drain", func(r *rendering) {
			all := intstr.FromInt32(3)
			r.budgets[0].Spec.MaxUnavailable, r.budgets[0].Spec.MinAvailable = nil, &all
		}},
		{"monitors", "finds both Services", func(r *rendering) { delete(r.monitors[0].Spec.Selector.MatchLabels, "rollcall/names") }},
		{"monitors", "no such port", func(r *rendering) { r.monitors[0].Spec.Endpoints[0].Port = "metrics" }},
		{"probes", "none", func(r *rendering) { r.container("registry").ReadinessProbe = nil }},
		{"probes", "alive is ready", func(r *rendering) { r.container("registry").LivenessProbe.HTTPGet.Path = "/readyz" }},
		{"probes", "no such port", func(r *rendering) { r.container("registry").LivenessProbe.HTTPGet.Port = intstr.FromInt32(7470) }},
		{"probes", "impatient", func(r *rendering) { r.container("registry").LivenessProbe.FailureThreshold = 1 }},
		{"probes", "no time to start", func(r *rendering) { r.container("collector").StartupProbe.FailureThreshold = 3 }},
		{"probes", "longer than its period", func(r *rendering) { r.container("collector").ReadinessProbe.TimeoutSeconds = 30 }},
		{"security", "root", func(r *rendering) { r.workload("registry").pod().SecurityContext.RunAsNonRoot = nil }},
		{"security", "seccomp", func(r *rendering) { r.workload("registry").pod().SecurityContext.SeccompProfile = nil }},
		{"security", "host", func(r *rendering) { r.workload("registry").pod().HostNetwork = true }},
		{"security", "token", func(r *rendering) { r.workload("registry").pod().AutomountServiceAccountToken = &yes }},
		{"security", "variables of Services", func(r *rendering) { r.workload("registry").pod().EnableServiceLinks = nil }},
		{"security", "volume of root", func(r *rendering) { r.workload("collector").pod().SecurityContext.FSGroup = nil }},
		{"security", "escalation", func(r *rendering) { r.container("registry").SecurityContext.AllowPrivilegeEscalation = nil }},
		{"security", "root file system", func(r *rendering) { r.container("registry").SecurityContext.ReadOnlyRootFilesystem = nil }},
		{"security", "capability", func(r *rendering) {
			r.container("registry").SecurityContext.Capabilities.Add = []corev1.Capability{"NET_RAW"}
		}},
		{"security", "all capabilities", func(r *rendering) { r.container("registry").SecurityContext.Capabilities = nil }},
		{"volumes", "not there", func(r *rendering) { r.workload("registry").pod().Volumes = nil }},
		{"volumes", "file elsewhere", func(r *rendering) { set(r.container("registry"), "ROLLCALL_ETCD_KEY", "/etc/rollcall/etcd-key") }},
		{"data", "elsewhere", func(r *rendering) { set(r.container("collector"), "ROLLCALL_DATA_DIR", "/data") }},
		{"data", "read-only", func(r *rendering) { r.container("collector").VolumeMounts[0].ReadOnly = true }},
		{"data", "gone with the pod", func(r *rendering) {
			w := r.workload("collector")
			w.pod().Volumes, w.claims = []corev1.Volume{{Name: "data"}}, nil
		}},
		{"data", "more than there is", func(r *rendering) { set(r.container("collector"), "ROLLCALL_RETENTION_BYTES", "53687091200") }},
		{"data", "no bound", func(r *rendering) { unset(r.container("collector"), "ROLLCALL_RETENTION_BYTES") }},
		{"stops", "no time", func(r *rendering) { *r.workload("collector").pod().TerminationGracePeriodSeconds = 280 }},
		{"stops", "default", func(r *rendering) { r.workload("registry").pod().TerminationGracePeriodSeconds = nil }},
		{"stops", "no drain", func(r *rendering) { r.container("collector").Lifecycle = nil }},
		{"stops", "shell", func(r *rendering) {
			r.container("collector").Lifecycle.PreStop.Exec.Command = []string{"sh", "-c", "/collector drain"}
		}},
		{"stops", "no bound", func(r *rendering) {
			r.container("collector").Lifecycle.PreStop.Exec.Command = []string{"/collector", "drain", "--wait"}
		}},
		{"images", "latest", func(r *rendering) { r.container("registry").Image = "rollcall/registry:latest" }},
		{"images", "no tag", func(r *rendering) { r.container("registry").Image = "rollcall/registry" }},
		{"images", "another one", func(r *rendering) { r.container("registry").Image = "rollcall/collector:dev" }},
		{"resources", "none", func(r *rendering) { r.container("registry").Resources = corev1.ResourceRequirements{} }},
		{"resources", "no room beside Go", func(r *rendering) {
			r.container("registry").Resources.Limits[corev1.ResourceMemory] = *r.container("registry").Resources.Requests.Memory()
		}},
		{"resources", "throttled", func(r *rendering) {
			r.container("registry").Resources.Limits[corev1.ResourceCPU] = resource.MustParse("1")
		}},
		{"resources", "Go does not know", func(r *rendering) { unset(r.container("registry"), "GOMEMLIMIT") }},
		{"variables", "not set", func(r *rendering) { unset(r.container("registry"), "POD_NAMESPACE") }},
		{"variables", "set too late", func(r *rendering) { slices.Reverse(r.container("registry").Env) }},
		{"variables", "empty", func(r *rendering) { set(r.container("registry"), "ROLLCALL_LISTEN", "") }},
		{"variables", "twice", func(r *rendering) {
			c := r.container("registry")
			c.Env = append(c.Env, c.Env[len(c.Env)-1])
		}},
		{"references", "account", func(r *rendering) { r.accounts = r.accounts[:1] }},
		{"references", "default account", func(r *rendering) { r.workload("registry").pod().ServiceAccountName = "" }},
		{"references", "token", func(r *rendering) { *r.accounts[0].AutomountServiceAccountToken = true }},
		{"references", "variables", func(r *rendering) { r.configs = nil }},
		{"addresses", "another pod", func(r *rendering) {
			set(r.container("collector"), "ROLLCALL_ADVERTISE", "collector-0.collectors.$(POD_NAMESPACE).svc:7480")
		}},
		{"addresses", "no name of a pod", func(r *rendering) {
			set(r.container("collector"), "ROLLCALL_ADVERTISE", "$(ROLLCALL_ID).collector.$(POD_NAMESPACE).svc:7480")
		}},
		{"addresses", "the other port", func(r *rendering) {
			set(r.container("collector"), "ROLLCALL_ADVERTISE", "$(ROLLCALL_ID).collectors.$(POD_NAMESPACE).svc:7481")
		}},
		{"addresses", "no such Service", func(r *rendering) {
			set(r.container("collector"), "ROLLCALL_REGISTRY", "registry:7470,registry-0:7470")
		}},
		{"addresses", "HTTP of a registry", func(r *rendering) { set(r.container("collector"), "ROLLCALL_REGISTRY", "registry:7471") }},
		{"addresses", "listens on no port", func(r *rendering) { set(r.container("registry"), "ROLLCALL_LISTEN", ":7480") }},
		{"addresses", "loopback", func(r *rendering) { set(r.container("registry"), "ROLLCALL_LISTEN", "127.0.0.1:7470") }},
		{"replicas", "neither", func(r *rendering) { r.container("registry").EnvFrom = nil }},
		{"replicas", "one over an etcd is no harm, two stores are", func(r *rendering) {
			c := r.container("registry")
			c.Env, c.EnvFrom = append(c.Env, corev1.EnvVar{Name: "ROLLCALL_DATA_DIR", Value: "/var/lib/rollcall"}), nil
		}},
		{"network", "a door for all", func(r *rendering) { r.policy("registry").Ingress[0].From = nil }},
		{"network", "all ports", func(r *rendering) { r.policy("registry").Ingress[0].Ports = nil }},
		{"network", "all namespaces", func(r *rendering) {
			r.policy("registry").Ingress[1].From[2].NamespaceSelector = &metav1.LabelSelector{}
		}},
		{"network", "all pods of a namespace", func(r *rendering) { r.policy("collector").Ingress[3].From[1].PodSelector = nil }},
		{"network", "no queries for the fleet", func(r *rendering) {
			r.policy("collector").Ingress[1].Ports = r.policy("collector").Ingress[1].Ports[1:]
		}},
		{"network", "no DNS", func(r *rendering) { r.policy("registry").Egress = r.policy("registry").Egress[:1] }},
		{"network", "no etcd", func(r *rendering) { r.policy("registry-etcd").Egress = nil }},
		{"network", "no producers", func(r *rendering) { r.policy("collector").Egress = r.policy("registry").Egress }},
		{"network", "not isolated", func(r *rendering) {
			r.policy("collector").PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
		}},
	}
}

// Each check complains of what it is there for, and each is broken at least once.
func TestBroken(t *testing.T) {
	all := checks()
	all["network"], all["plaintext"] = network("mine/etcd"), plaintext("mine/etcd")
	unbroken := map[string]bool{}
	for name := range all {
		unbroken[name] = true
	}
	for _, b := range append(breakages(), tlsBreakages()...) {
		r := render(t, "mine/etcd")
		b.inflict(r)
		complaints := 0
		all[b.check](r, func(string, ...any) { complaints++ })
		if complaints == 0 {
			t.Errorf("%s: %s: no complaint", b.check, b.name)
		}
		delete(unbroken, b.check)
	}
	if len(unbroken) > 0 {
		t.Errorf("nothing breaks %v", unbroken)
	}
}
