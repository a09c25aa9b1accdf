package kubernetes

import (
	"slices"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
)

// volume finds one of a workload by its name.
func (r *rendering) volume(workload, name string) *corev1.Volume {
	all := r.workload(workload).pod().Volumes
	return &all[slices.IndexFunc(all, func(v corev1.Volume) bool { return v.Name == name })]
}

// mount finds one of a container by the name of its volume.
func mount(c *corev1.Container, name string) *corev1.VolumeMount {
	return &c.VolumeMounts[slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == name })]
}

// unmount takes the mount of a volume away.
func unmount(c *corev1.Container, name string) {
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == name })
}

// issue finds a certificate by its Secret.
func (r *rendering) issue(secret string) *certmanagerv1.CertificateSpec {
	return r.certificate("metrics", secret)
}

// without is a list without one name.
func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}

// tlsBreakages are those of certificates and rules, of what breakages is about.
func tlsBreakages() []breakage {
	yes, other := true, "registrar"
	return []breakage{
		{"plaintext", "by its word", func(r *rendering) {
			r.container("registry").Env = append(r.container("registry").Env, corev1.EnvVar{Name: "ROLLCALL_INSECURE", Value: "true"})
		}},
		{"secured", "both", func(r *rendering) {
			r.container("registry").Env = append(r.container("registry").Env, corev1.EnvVar{Name: "ROLLCALL_INSECURE", Value: "true"})
		}},
		{"secured", "neither", func(r *rendering) {
			for name := range tlsVariables {
				unset(r.container("collector"), name)
			}
		}},
		{"secured", "no authority", func(r *rendering) { unset(r.container("collector"), "ROLLCALL_TLS_CA") }},
		{"secured", "no rules", func(r *rendering) { unset(r.container("collector"), "ROLLCALL_ACCESS") }},
		{"secured", "probe", func(r *rendering) { r.container("collector").ReadinessProbe.HTTPGet.Scheme = corev1.URISchemeHTTP }},
		{"secured", "plain text to the Service", func(r *rendering) { r.service("registries").Spec.Ports[1].AppProtocol = nil }},
		{"monitored", "plain text", func(r *rendering) { r.monitors[0].Spec.Endpoints[0].Scheme = nil }},
		{"monitored", "as nobody", func(r *rendering) { r.monitors[0].Spec.Endpoints[0].TLSConfig.KeySecret = nil }},
		{"monitored", "as a registry", func(r *rendering) { r.monitors[0].Spec.Endpoints[0].TLSConfig.Cert.Secret.Name = "registry-tls" }},
		{"monitored", "another key", func(r *rendering) { r.monitors[1].Spec.Endpoints[0].TLSConfig.CA.Secret.Key = "ca.pem" }},
		{"monitored", "whoever answers", func(r *rendering) { r.monitors[1].Spec.Endpoints[0].TLSConfig.InsecureSkipVerify = &yes }},
		{"monitored", "an address", func(r *rendering) { r.monitors[1].Spec.Endpoints[0].TLSConfig.ServerName = nil }},
		{"secrets", "of another one", func(r *rendering) { r.volume("registry", "tls").Secret.SecretName = "collector-tls" }},
		{"secrets", "of etcd", func(r *rendering) { r.volume("registry", "etcd").Secret.SecretName = "etcd" }},
		{"secrets", "for all", func(r *rendering) { r.volume("registry", "etcd").Secret.DefaultMode = nil }},
		{"secrets", "for root", func(r *rendering) { r.workload("registry").pod().SecurityContext.FSGroup = nil }},
		{"secrets", "not waited for", func(r *rendering) { r.volume("collector", "tls").Secret.Optional = &yes }},
		{"secrets", "no rules", func(r *rendering) {
			r.configs = slices.DeleteFunc(r.configs, func(m *corev1.ConfigMap) bool { return m.Name == "access" })
		}},
		{"secrets", "no such file of rules", func(r *rendering) { r.volume("collector", "access").ConfigMap.Name = "registry-etcd" }},
		{"secrets", "never renewed", func(r *rendering) { mount(r.container("collector"), "tls").SubPath = "tls.crt" }},
		{"secrets", "can be written", func(r *rendering) { mount(r.container("collector"), "tls").ReadOnly = false }},
		{"secrets", "not mounted", func(r *rendering) { unmount(r.container("collector"), "tls") }},
		{"secrets", "misspelt", func(r *rendering) { set(r.container("collector"), "ROLLCALL_TLS_CERT", "/etc/rollcall/tls/tls.cert") }},
		{"secrets", "the key of etcd", func(r *rendering) { set(r.container("registry"), "ROLLCALL_TLS_KEY", "/etc/rollcall/etcd/tls.key") }},
		{"secrets", "the other one of two", func(r *rendering) {
			set(r.container("registry"), "ROLLCALL_ETCD_CACERT", "/etc/rollcall/etcd/tls.crt")
		}},
		{"issued", "not at all", func(r *rendering) { r.issue("collector-tls").SecretName = "collectors-tls" }},
		{"issued", "not for Prometheus", func(r *rendering) { r.issue("reader-tls").SecretName = "readers-tls" }},
		{"issued", "not for a server", func(r *rendering) { r.issue("registry-tls").Usages = r.issue("reader-tls").Usages }},
		{"issued", "not for the Service", func(r *rendering) {
			r.issue("registry-tls").DNSNames = without(r.issue("registry-tls").DNSNames, "registry")
		}},
		{"issued", "not for all registries", func(r *rendering) {
			r.issue("registry-tls").DNSNames = without(r.issue("registry-tls").DNSNames, "registries")
		}},
		{"issued", "not for other namespaces", func(r *rendering) {
			r.issue("registry-tls").DNSNames = without(r.issue("registry-tls").DNSNames, "registry.metrics")
		}},
		{"issued", "not for pods", func(r *rendering) {
			r.issue("collector-tls").DNSNames = without(r.issue("collector-tls").DNSNames, "*.collectors.metrics.svc")
		}},
		{"issued", "for another namespace", func(r *rendering) {
			for _, w := range r.workloads {
				w.Namespace = "elsewhere"
			}
			for _, c := range r.certificates {
				c.Namespace = "elsewhere"
			}
		}},
		{"issued", "not for Prometheus's name", func(r *rendering) { r.monitors[0].Spec.Endpoints[0].TLSConfig.ServerName = &other }},
		{"certified", "no issuer", func(r *rendering) { r.issuers = nil }},
		{"certified", "for everybody's issuer", func(r *rendering) { r.issue("registry-tls").IssuerRef.Kind = "ClusterIssuer" }},
		{"certified", "somebody else", func(r *rendering) { r.issue("reader-tls").URIs = r.issue("operator-tls").URIs }},
		{"certified", "nobody", func(r *rendering) { r.issue("reader-tls").URIs = nil }},
		{"certified", "an authority", func(r *rendering) { r.issue("reader-tls").IsCA = true }},
		{"certified", "no client", func(r *rendering) { r.issue("collector-tls").Usages = r.issue("collector-tls").Usages[:2] }},
		{"certified", "the same key for ever", func(r *rendering) { r.issue("reader-tls").PrivateKey = nil }},
		{"certified", "renewed too late", func(r *rendering) { r.issue("reader-tls").RenewBefore = nil }},
	}
}
