package kubernetes

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// env is the value of a variable, as it is written.
func env(c *corev1.Container, name string) string {
	for _, v := range c.Env {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
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
