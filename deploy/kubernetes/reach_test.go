package kubernetes

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A place is where a connection begins or ends: a pod, by its labels and those
// of its namespace.
type place struct {
	namespace       string
	namespaceLabels map[string]string
	labels          map[string]string
}

// allowed tells whether policies let a connection through: those of each end
// have to, unless there are none for that end and direction.
func allowed(policies []*networkingv1.NetworkPolicy, from, to place, protocol corev1.Protocol, number int32) bool {
	return passes(policies, networkingv1.PolicyTypeEgress, from, to, protocol, number) &&
		passes(policies, networkingv1.PolicyTypeIngress, to, from, protocol, number)
}

// passes looks at one end, with the other one as the peer.
func passes(policies []*networkingv1.NetworkPolicy, direction networkingv1.PolicyType, end, peer place, protocol corev1.Protocol, number int32) bool {
	isolated := false
	for _, p := range policies {
		if p.Namespace != end.namespace || !takes(&p.Spec.PodSelector, end.labels) || !slices.Contains(p.Spec.PolicyTypes, direction) {
			continue
		}
		isolated = true
		if direction == networkingv1.PolicyTypeIngress {
			for _, rule := range p.Spec.Ingress {
				if peers(rule.From, p.Namespace, peer) && ports(rule.Ports, protocol, number) {
					return true
				}
			}
			continue
		}
		for _, rule := range p.Spec.Egress {
			if peers(rule.To, p.Namespace, peer) && ports(rule.Ports, protocol, number) {
				return true
			}
		}
	}
	return !isolated
}

// takes is matches, but that an empty selector takes everything.
func takes(selector *metav1.LabelSelector, of map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(of))
}

func peers(all []networkingv1.NetworkPolicyPeer, namespace string, peer place) bool {
	return len(all) == 0 || slices.ContainsFunc(all, func(p networkingv1.NetworkPolicyPeer) bool {
		if p.IPBlock != nil {
			return false // none is used: TestReach would tell what it lets through as missing
		}
		if p.NamespaceSelector == nil && peer.namespace != namespace || p.NamespaceSelector != nil && !takes(p.NamespaceSelector, peer.namespaceLabels) {
			return false
		}
		return p.PodSelector == nil || takes(p.PodSelector, peer.labels)
	})
}

func ports(all []networkingv1.NetworkPolicyPort, protocol corev1.Protocol, number int32) bool {
	return len(all) == 0 || slices.ContainsFunc(all, func(p networkingv1.NetworkPolicyPort) bool {
		return p.Protocol != nil && *p.Protocol == protocol && p.EndPort == nil && p.Port != nil && *p.Port == intstr.FromInt32(number)
	})
}

// places are all kinds of ends that there are. Registries and collectors are
// those of the rendering.
func (r *rendering) places() map[string]place {
	home := r.workload("registry").Namespace
	in := func(namespace, label, value string) place {
		p := place{namespace: namespace, namespaceLabels: map[string]string{"kubernetes.io/metadata.name": namespace}, labels: map[string]string{}}
		if namespace == "shop" {
			p.namespaceLabels["rollcall/clients"] = "allowed"
		}
		if label != "" {
			p.labels[label] = value
		}
		return p
	}
	ours := func(name string) place {
		p := in(home, "", "")
		p.labels = r.workload(name).template.Labels
		return p
	}
	return map[string]place{
		"registry":                 ours("registry"),
		"collector":                ours("collector"),
		"operator":                 in(home, "rollcall/operator", "true"),
		"producer":                 in(home, "rollcall/registry-client", "true"),
		"producer, allowed":        in("shop", "rollcall/registry-client", "true"),
		"producer, not allowed":    in("other", "rollcall/registry-client", "true"),
		"querier":                  in(home, "rollcall/query-client", "true"),
		"querier, allowed":         in("shop", "rollcall/query-client", "true"),
		"querier, not allowed":     in("other", "rollcall/query-client", "true"),
		"operator, from elsewhere": in("shop", "rollcall/operator", "true"),
		"stranger":                 in(home, "app", "x"),
		"stranger, allowed":        in("shop", "app", "x"),
		"prometheus":               in("monitoring", "app.kubernetes.io/name", "prometheus"),
		"beside prometheus":        in("monitoring", "app.kubernetes.io/name", "other"),
		"dns":                      in("kube-system", "k8s-app", "kube-dns"),
		"etcd":                     in("etcd", "app", "etcd"),
	}
}

// needed are the connections to and from registries and collectors that the
// design has, but for those of collectors to all others, which are all there.
func needed(dir string) []string {
	all := []string{
		"registry -> collector TCP/7480",         // witnesses, load
		"collector -> registry TCP/7470",         // assignments, and the drain before a stop
		"collector -> registry TCP/7471",         // its metrics
		"collector -> collector TCP/7480",        // queries for the fleet
		"collector -> collector TCP/7481",        // each other's metrics
		"operator -> registry TCP/7470",          //
		"operator -> collector TCP/7480",         //
		"producer -> registry TCP/7470",          // registrations
		"producer, allowed -> registry TCP/7470", //
		"querier -> collector TCP/7481",          // PromQL
		"querier, allowed -> collector TCP/7481", //
		"registry -> dns TCP/53",                 //
		"registry -> dns UDP/53",                 //
		"registry -> etcd TCP/53",                // DNS may be anywhere
		"registry -> etcd UDP/53",                //
		"registry -> producer, allowed TCP/53",   //
		"registry -> producer, allowed UDP/53",   //
		"registry -> stranger TCP/53",            //
		"registry -> stranger UDP/53",            //
	}
	if strings.HasSuffix(dir, "etcd") {
		all = append(all, "registry -> etcd TCP/2379", "registry -> dns TCP/2379", // it may be anywhere
			"registry -> producer, allowed TCP/2379", "registry -> stranger TCP/2379")
	}
	if strings.HasPrefix(dir, "mine") || strings.HasPrefix(dir, "trial/") {
		all = append(all, "prometheus -> registry TCP/7471", "prometheus -> collector TCP/7481")
	}
	return all
}

// reach lists the connections that are let through, to and from our pods.
func (r *rendering) reach() []string {
	var all []string
	places := r.places()
	for fromName, from := range places {
		for toName, to := range places {
			into := toName == "registry" || toName == "collector"
			out := fromName == "registry" && slices.Contains([]string{"dns", "etcd", "stranger", "producer, allowed"}, toName)
			if !into && !out {
				continue
			}
			for _, number := range []int32{53, 2379, 7470, 7471, 7480, 7481} {
				for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
					if allowed(r.policies, from, to, protocol, number) {
						all = append(all, fmt.Sprintf("%s -> %s %s/%d", fromName, toName, protocol, number))
					}
				}
			}
		}
	}
	return all
}

// network compares what is let through with what is needed.
func network(dir string) func(*rendering, complain) {
	return func(r *rendering, no complain) {
		got, want := r.reach(), needed(dir)
		for _, c := range want {
			if !slices.Contains(got, c) {
				no("%s is needed, and is not let through", c)
			}
		}
		for _, c := range got {
			if !slices.Contains(want, c) {
				no("%s is let through, and nothing needs it", c)
			}
		}
		anywhere := place{namespace: "anywhere", labels: map[string]string{"app": "y"}}
		for _, number := range []int32{443, 7490, 8080, 65535} {
			if !allowed(r.policies, r.places()["collector"], anywhere, corev1.ProtocolTCP, number) {
				no("a collector cannot pull a producer at port %d", number)
			}
		}
	}
}

func TestReach(t *testing.T) {
	for _, dir := range directories() {
		if dir != "examples/sidecar" {
			network(dir)(render(t, dir), func(format string, args ...any) { t.Errorf("%s: %s", dir, fmt.Sprintf(format, args...)) })
		}
	}
}

// The example's pods reach the registry of both overlays, and are reached.
func TestReachExample(t *testing.T) {
	example := render(t, "examples/sidecar")
	w := example.workload("checkout")
	pod := place{w.Namespace, map[string]string{"rollcall/clients": "allowed"}, w.template.Labels}
	for _, overlay := range []string{"overlays/embedded", "overlays/etcd"} {
		r := render(t, overlay)
		registry, collector := r.places()["registry"], r.places()["collector"]
		if !allowed(r.policies, pod, registry, corev1.ProtocolTCP, 7470) {
			t.Errorf("%s: the example does not reach the registry", overlay)
		}
		if !allowed(append(r.policies, example.policies...), collector, pod, corev1.ProtocolTCP, 8080) {
			t.Errorf("%s: a collector does not reach the example", overlay)
		}
		c := &w.pod().InitContainers[0]
		name, _, _ := strings.Cut(env(c, "ROLLCALL_REGISTRY"), ":")
		service, namespace, _ := strings.Cut(name, ".")
		if namespace != registry.namespace || !r.served(namespace, strings.Replace(env(c, "ROLLCALL_REGISTRY"), name, service, 1)) {
			t.Errorf("%s: no registry is at %s", overlay, env(c, "ROLLCALL_REGISTRY"))
		}
		endpoint, err := url.Parse(strings.Replace(env(c, "ROLLCALL_ENDPOINT"), "$(POD_IP)", "192.0.2.1", 1))
		if err != nil || endpoint.Port() != fmt.Sprint(w.pod().Containers[0].Ports[0].ContainerPort) {
			t.Errorf("the endpoint %s is no port of the program", env(c, "ROLLCALL_ENDPOINT"))
		}
	}
}

// The port of every etcd member that the overlay names is let through.
func TestEtcdPorts(t *testing.T) {
	r := render(t, "overlays/etcd")
	members := strings.Split(r.settings(r.container("registry"))["ROLLCALL_ETCD_ENDPOINTS"], ",")
	if len(members) != 3 {
		t.Errorf("members: %q, want 3", members)
	}
	for _, member := range members {
		u, err := url.Parse(member)
		if err != nil || u.Scheme != "https" {
			t.Errorf("%q is no https URL", member)
			continue
		}
		if u.Port() != "2379" || !slices.Contains(r.reach(), "registry -> etcd TCP/"+u.Port()) {
			t.Errorf("a registry does not reach %s", member)
		}
	}
}

// The evaluator says what Kubernetes says, in the cases that are easy to get
// wrong.
func TestAllowed(t *testing.T) {
	tcp, web := corev1.ProtocolTCP, intstr.FromInt32(80)
	port80 := []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &web}}
	everyPod, a := &metav1.LabelSelector{}, &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}
	from := place{"n", map[string]string{"team": "x"}, map[string]string{"app": "a"}}
	to := place{"n", map[string]string{"team": "x"}, map[string]string{"app": "b"}}
	elsewhere := place{"m", map[string]string{"team": "x"}, map[string]string{"app": "a"}}
	policy := func(types networkingv1.PolicyType, rules ...networkingv1.NetworkPolicyIngressRule) []*networkingv1.NetworkPolicy {
		return []*networkingv1.NetworkPolicy{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n"},
			Spec:       networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: to.labels}, PolicyTypes: []networkingv1.PolicyType{types}, Ingress: rules},
		}}
	}
	rule := func(peers ...networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{From: peers, Ports: port80}
	}
	ingress := networkingv1.PolicyTypeIngress
	for name, c := range map[string]struct {
		policies []*networkingv1.NetworkPolicy
		from     place
		want     bool
	}{
		"no policy":                            {nil, from, true},
		"isolated":                             {policy(ingress), from, false},
		"isolated in the other direction only": {policy(networkingv1.PolicyTypeEgress), from, true},
		"anybody":                              {policy(ingress, rule()), elsewhere, true},
		"pods, of the policy's namespace":      {policy(ingress, rule(networkingv1.NetworkPolicyPeer{PodSelector: a})), from, true},
		"pods, of another namespace":           {policy(ingress, rule(networkingv1.NetworkPolicyPeer{PodSelector: a})), elsewhere, false},
		"pods of all namespaces":               {policy(ingress, rule(networkingv1.NetworkPolicyPeer{PodSelector: a, NamespaceSelector: everyPod})), elsewhere, true},
		"both selectors, one does not match": {policy(ingress, rule(networkingv1.NetworkPolicyPeer{
			PodSelector: a, NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "y"}},
		})), from, false},
		"a second rule": {policy(ingress, rule(networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: to.labels}}), rule()), from, true},
	} {
		if got := allowed(c.policies, c.from, to, tcp, 80); got != c.want {
			t.Errorf("%s: let through: %t", name, got)
		}
		if c.policies != nil && allowed(c.policies, c.from, to, tcp, 81) && name != "isolated in the other direction only" {
			t.Errorf("%s: another port is let through", name)
		}
	}
}
