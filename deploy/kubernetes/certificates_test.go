package kubernetes

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// certificate finds one by the Secret that it is for.
func (r *rendering) certificate(namespace, secret string) *certmanagerv1.CertificateSpec {
	for _, c := range r.certificates {
		if c.Namespace == namespace && c.Spec.SecretName == secret {
			return &c.Spec
		}
	}
	return nil
}

// dialled are the names by which others reach the pods of a workload.
func (r *rendering) dialled(w *workload) []string {
	var all []string
	for _, s := range r.services { // programs of other namespaces
		if s.Namespace == w.Namespace && s.Spec.ClusterIP != corev1.ClusterIPNone && matches(&metav1.LabelSelector{MatchLabels: s.Spec.Selector}, w.template.Labels) {
			all = append(all, s.Name, s.Name+"."+s.Namespace, s.Name+"."+s.Namespace+".svc")
		}
	}
	for _, m := range r.monitors {
		for _, e := range m.Spec.Endpoints {
			if slices.Contains(r.monitored(m), w) && e.TLSConfig != nil && e.TLSConfig.ServerName != nil {
				all = append(all, *e.TLSConfig.ServerName)
			}
		}
	}
	for _, other := range r.workloads {
		for _, c := range other.containers() {
			if w.Name == "registry" {
				all = append(all, hosts(env(c, "ROLLCALL_REGISTRY"))...)
			}
			for pod := range w.replicas {
				if other == w {
					of := strings.NewReplacer("$(POD_NAMESPACE)", w.Namespace, "$(ROLLCALL_ID)", fmt.Sprintf("%s-%d", w.Name, pod), "$(ROLLCALL_NAME)", fmt.Sprintf("%s-%d", w.Name, pod))
					all = append(all, hosts(of.Replace(env(c, "ROLLCALL_ADVERTISE")))...)
					all = append(all, hosts(of.Replace(env(c, "ROLLCALL_ADVERTISE_HTTP")))...)
				}
			}
		}
	}
	return all
}

// hosts are those of addresses with commas between them.
func hosts(addresses string) []string {
	var all []string
	for address := range strings.SplitSeq(addresses, ",") {
		if host, _, err := net.SplitHostPort(address); err == nil {
			all = append(all, host)
		}
	}
	return all
}

// issuedFor: where certificates are issued, each Secret that is used has one, which
// is for all names that others dial.
func issuedFor(r *rendering, no complain) {
	if len(r.certificates) == 0 {
		return
	}
	for _, w := range r.workloads {
		for _, v := range w.pod().Volumes {
			if v.Secret == nil || v.Name == "etcd" {
				continue
			}
			c := r.certificate(w.Namespace, v.Secret.SecretName)
			if c == nil {
				no("%s waits for %s, which nobody issues", w.Name, v.Secret.SecretName)
				continue
			}
			for _, name := range r.dialled(w) {
				if err := (&x509.Certificate{DNSNames: c.DNSNames}).VerifyHostname(name); err != nil {
					no("%s is dialled as %s: %v", w.Name, name, err)
				}
			}
			if !slices.Contains(c.Usages, certmanagerv1.UsageServerAuth) {
				no("%s is no certificate of a server", c.SecretName)
			}
		}
	}
	if len(r.monitors) > 0 && r.certificate(r.workload("registry").Namespace, "reader-tls") == nil {
		no("Prometheus waits for reader-tls, which nobody issues")
	}
}

// identity is what a certificate says whose it is.
var identity = regexp.MustCompile(`^spiffe://cluster\.local/rollcall/([a-z]+/[a-z]+)$`)

// certified: each certificate is somebody's, of an issuer that is there, and is
// renewed, with a new key, long before it ends.
func certified(r *rendering, no complain) {
	for _, c := range r.certificates {
		s := &c.Spec
		if !slices.ContainsFunc(r.issuers, func(i *certmanagerv1.Issuer) bool {
			return i.Name == s.IssuerRef.Name && i.Namespace == c.Namespace && s.IssuerRef.Kind == certmanagerv1.IssuerKind && i.Spec.CA != nil && i.Spec.CA.SecretName == "rollcall-ca"
		}) {
			no("%s: its issuer is not there", c.Name)
		}
		role, _, _ := strings.Cut(s.SecretName, "-tls")
		if len(s.URIs) != 1 || !identity.MatchString(s.URIs[0]) || !strings.Contains(s.URIs[0], "/rollcall/"+role+"/") {
			no("%s is for %q", c.Name, s.URIs)
		}
		if c.Name != s.SecretName || s.IsCA || !slices.Contains(s.Usages, certmanagerv1.UsageClientAuth) || !slices.Contains(s.Usages, certmanagerv1.UsageDigitalSignature) {
			no("%s: %s, usages %v, an authority: %t", c.Name, s.SecretName, s.Usages, s.IsCA)
		}
		if s.PrivateKey == nil || s.PrivateKey.RotationPolicy != certmanagerv1.RotationPolicyAlways || s.Duration == nil || s.RenewBefore == nil ||
			s.RenewBefore.Duration < s.Duration.Duration/4 || s.RenewBefore.Duration > s.Duration.Duration/2 {
			no("%s is not renewed in time", c.Name)
		}
	}
}

// A row is a certificate in the table of the README.
type row struct {
	secret, identity string
	names            []string
}

// documented are the certificates that the README tells to make.
func documented(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	cells := regexp.MustCompile("(?m)^\\| `([a-z]+-tls)` \\| `([a-z]+/[a-z]+)` \\|(.*)\\|")
	for _, m := range cells.FindAllStringSubmatch(string(text), -1) {
		r := row{secret: m[1], identity: m[2]}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[3], -1) {
			if !strings.HasPrefix(m[3], " none: ") {
				r.names = append(r.names, name[1])
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// The README and cert-manager make the same certificates, but for those of other
// namespaces.
func TestDocumentedCertificates(t *testing.T) {
	r, documented := render(t, "issued/etcd"), documented(t)
	for _, c := range r.certificates {
		i := slices.IndexFunc(documented, func(d row) bool { return d.secret == c.Spec.SecretName })
		if i < 0 {
			t.Errorf("the README has no %s", c.Spec.SecretName)
			continue
		}
		if d := documented[i]; !slices.Equal(c.Spec.URIs, []string{"spiffe://cluster.local/rollcall/" + d.identity}) || !slices.Equal(c.Spec.DNSNames, d.names) {
			t.Errorf("%s: the README says %s %q, cert-manager issues %q %q", d.secret, d.identity, d.names, c.Spec.URIs, c.Spec.DNSNames)
		}
	}
	if len(documented) != len(r.certificates)+1 || len(r.certificates) != 4 {
		t.Errorf("the README has %d certificates, cert-manager issues %d", len(documented), len(r.certificates))
	}
	for _, other := range []string{"mine/embedded", "mine/etcd"} { // the namespace is in the names
		if names := render(t, other).certificate("metrics", "registry-tls").DNSNames; !slices.Equal(names, []string{
			"registry", "registry.metrics", "registry.metrics.svc", "registries", "*.registries.metrics.svc", "localhost",
		}) {
			t.Errorf("%s: %q", other, names)
		}
	}
}
