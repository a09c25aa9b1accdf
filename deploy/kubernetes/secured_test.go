package kubernetes

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tlsVariables and etcdVariables are the keys of the Secrets that they name.
var (
	tlsVariables  = map[string]string{"ROLLCALL_TLS_CERT": corev1.TLSCertKey, "ROLLCALL_TLS_KEY": corev1.TLSPrivateKeyKey, "ROLLCALL_TLS_CA": corev1.ServiceAccountRootCAKey}
	etcdVariables = map[string]string{"ROLLCALL_ETCD_CERT": corev1.TLSCertKey, "ROLLCALL_ETCD_KEY": corev1.TLSPrivateKeyKey, "ROLLCALL_ETCD_CACERT": corev1.ServiceAccountRootCAKey}
)

// given counts the variables that a container has.
func given(c *corev1.Container, variables map[string]string) int {
	n := 0
	for name := range variables {
		if env(c, name) != "" {
			n++
		}
	}
	return n
}

// hasTLS tells whether the pods of a workload show a certificate.
func (w *workload) hasTLS() bool {
	return slices.ContainsFunc(w.containers(), func(c *corev1.Container) bool { return given(c, tlsVariables) == len(tlsVariables) })
}

// secured: a process has TLS and rules, or is in plain text by its own word; and
// those who ask it know which.
func secured(r *rendering, no complain) {
	for _, w := range r.workloads {
		for _, c := range w.containers() {
			if !ours(c) {
				continue
			}
			n, insecure, rules := given(c, tlsVariables), env(c, "ROLLCALL_INSECURE"), env(c, "ROLLCALL_ACCESS")
			switch {
			case n == len(tlsVariables) && insecure == "" && (rules != "" || w.serviceName == ""):
			case n == 0 && insecure == "true" && rules == "":
			default:
				no("%s: %d variables of TLS, rules %q, ROLLCALL_INSECURE=%q", c.Name, n, rules, insecure)
			}
			for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
				if probe != nil && probe.HTTPGet != nil && (probe.HTTPGet.Scheme == corev1.URISchemeHTTPS) != (n > 0) {
					no("%s: its probe asks by %s", c.Name, probe.HTTPGet.Scheme)
				}
			}
		}
		for _, s := range r.services {
			for _, p := range s.Spec.Ports {
				want := map[string]string{"grpc": "kubernetes.io/h2c", "http": "http"}[p.Name]
				if w.hasTLS() {
					want = "https"
				}
				if s.Namespace == w.Namespace && matches(&metav1.LabelSelector{MatchLabels: s.Spec.Selector}, w.template.Labels) &&
					(p.AppProtocol == nil || *p.AppProtocol != want) {
					no("the Service %s: its port %s speaks %s", s.Name, p.Name, want)
				}
			}
		}
	}
}

// plaintext: none but for trials.
func plaintext(dir string) func(*rendering, complain) {
	return func(r *rendering, no complain) {
		for _, w := range r.workloads {
			for _, c := range w.containers() {
				if env(c, "ROLLCALL_INSECURE") != "" && !strings.HasPrefix(dir, "trial") {
					no("%s/%s is in plain text", w.Name, c.Name)
				}
			}
		}
	}
}

func TestPlaintext(t *testing.T) {
	for _, dir := range directories() {
		plaintext(dir)(render(t, dir), func(format string, args ...any) { t.Errorf("%s: %s", dir, fmt.Sprintf(format, args...)) })
	}
}

// monitored are the workloads that a monitor has collected.
func (r *rendering) monitored(m *monitoringv1.ServiceMonitor) []*workload {
	var all []*workload
	for _, s := range r.services {
		if s.Namespace == m.Namespace && matches(&m.Spec.Selector, s.Labels) {
			all = append(all, r.selected(s.Namespace, &metav1.LabelSelector{MatchLabels: s.Spec.Selector})...)
		}
	}
	return all
}

// monitored: Prometheus asks as a reader, whom it takes for who it should be.
func monitored(r *rendering, no complain) {
	for _, m := range r.monitors {
		for _, w := range r.monitored(m) {
			for _, e := range m.Spec.Endpoints {
				c := e.TLSConfig
				switch {
				case !w.hasTLS() && e.Scheme == nil && c == nil:
				case !w.hasTLS() || e.Scheme == nil || e.Scheme.String() != "https" || c == nil:
					no("the monitor %s asks by %v", m.Name, e.Scheme)
				case c.ServerName == nil || c.InsecureSkipVerify != nil:
					no("the monitor %s asks whoever answers", m.Name)
				case !ofReader(c.CA.Secret, corev1.ServiceAccountRootCAKey) || !ofReader(c.Cert.Secret, corev1.TLSCertKey) || !ofReader(c.KeySecret, corev1.TLSPrivateKeyKey):
					no("the monitor %s shows no certificate of a reader", m.Name)
				}
			}
		}
	}
}

func ofReader(s *corev1.SecretKeySelector, key string) bool {
	return s != nil && s.Name == "reader-tls" && s.Key == key
}

// secretOf is the Secret that a workload's volume has to be.
var secretOf = map[string]string{
	"registry/tls": "registry-tls", "registry/etcd": "etcd-client-tls", "collector/tls": "collector-tls", "checkout/tls": "producer-tls",
}

// secrets: every volume is the Secret or ConfigMap that it should be, is waited
// for, and is followed when it changes; and the variables name keys that it has.
func secrets(r *rendering, no complain) {
	for _, w := range r.workloads {
		for _, v := range w.pod().Volumes {
			switch {
			case v.ConfigMap != nil:
				if v.ConfigMap.Optional != nil || !slices.ContainsFunc(r.configs, func(m *corev1.ConfigMap) bool { return m.Name == v.ConfigMap.Name && m.Namespace == w.Namespace }) {
					no("%s: its volume %s is of no ConfigMap that is there", w.Name, v.Name)
				}
			case v.Secret == nil || v.Secret.SecretName != secretOf[w.Name+"/"+v.Name] || v.Secret.Optional != nil || len(v.Secret.Items) > 0:
				no("%s: its volume %s is not the Secret that it should be", w.Name, v.Name)
			case v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440 || w.pod().SecurityContext.FSGroup == nil:
				no("%s: its volume %s is not for its group alone", w.Name, v.Name)
			}
		}
		for _, c := range w.containers() {
			for _, m := range c.VolumeMounts {
				if m.SubPath != "" || m.SubPathExpr != "" || strings.HasPrefix(m.MountPath, "/etc/") && !m.ReadOnly {
					no("%s: its mount at %s does not change, or can be written", c.Name, m.MountPath)
				}
			}
			r.named(w, c, tlsVariables, "tls", no)
			r.named(w, c, etcdVariables, "etcd", no)
			r.named(w, c, map[string]string{"ROLLCALL_ACCESS": "access.yaml"}, "access", no)
		}
	}
}

// named looks at the keys which variables name of a volume.
func (r *rendering) named(w *workload, c *corev1.Container, variables map[string]string, volume string, no complain) {
	for name, key := range variables {
		file := env(c, name)
		if file == "" {
			continue
		}
		i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == path.Dir(file) })
		if i < 0 || c.VolumeMounts[i].Name != volume || path.Base(file) != key {
			no("%s: %s is %s, want %s of the volume %s", c.Name, name, file, key, volume)
		}
		for _, v := range w.pod().Volumes {
			if v.Name != volume || v.ConfigMap == nil {
				continue
			}
			if !slices.ContainsFunc(r.configs, func(m *corev1.ConfigMap) bool { return m.Name == v.ConfigMap.Name && m.Data[key] != "" }) {
				no("%s: the ConfigMap %s has no %s", c.Name, v.ConfigMap.Name, key)
			}
		}
	}
}
