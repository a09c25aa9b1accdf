package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// command is a program of Rollcall, as make build has left it. Building it here
// would be another build of all that it needs.
func command(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, "bin/"+name+" is not there: make manifests builds it")
	}
	return path
}

// missing skips for want of a part, unless all are required.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// settings are the variables that a container sets, from ConfigMaps, too.
func (r *rendering) settings(c *corev1.Container) map[string]string {
	all := map[string]string{}
	for _, from := range c.EnvFrom {
		for _, config := range r.configs {
			if from.ConfigMapRef != nil && config.Name == from.ConfigMapRef.Name {
				maps.Copy(all, config.Data)
			}
		}
	}
	for _, v := range c.Env {
		all[v.Name] = v.Value
	}
	return all
}

// Every variable of ours is a flag of the program that gets it: one that is not
// would be a wish that nobody hears.
func TestVariablesAreFlags(t *testing.T) {
	for _, name := range []string{"registry", "collector", "producer"} {
		t.Run(name, func(t *testing.T) {
			help, err := exec.CommandContext(t.Context(), command(t, name), "--help").Output()
			if err != nil {
				t.Fatal(err)
			}
			flags := regexp.MustCompile(`ROLLCALL_[A-Z0-9_]+`).FindAllString(string(help), -1)
			known := func(variable string) bool {
				return !strings.HasPrefix(variable, "ROLLCALL_") || slices.Contains(flags, variable)
			}
			if known("ROLLCALL_NO_SUCH_FLAG") || !known("ROLLCALL_HTTP_LISTEN") {
				t.Fatalf("the flags are %v", flags)
			}
			for _, dir := range directories() {
				r := render(t, dir)
				for _, w := range r.workloads {
					for _, c := range w.containers() {
						for variable := range r.settings(c) {
							if c.Name == name && !known(variable) {
								t.Errorf("%s: there is no flag for %s", dir, variable)
							}
						}
					}
				}
			}
		})
	}
}

// environment is what a container's process gets, as a pod named NAME-0 has it, but
// that it listens on ports of loopback that the system picks, and has its data and
// its rules in dir. Its Secrets are those of the authority.
func (r *rendering) environment(t *testing.T, w *workload, c *corev1.Container, a authority, dir string) []string {
	t.Helper()
	vars := map[string]string{}
	fields := map[string]string{"metadata.name": w.Name + "-0", "metadata.namespace": w.Namespace, "status.podIP": "192.0.2.1"}
	maps.Copy(vars, r.settings(c))
	for _, v := range c.Env {
		switch from := v.ValueFrom; {
		case from != nil && from.FieldRef != nil:
			vars[v.Name] = fields[from.FieldRef.FieldPath]
		case from != nil && from.ResourceFieldRef != nil:
			vars[v.Name] = c.Resources.Requests.Memory().AsDec().String()
		default:
			vars[v.Name] = reference.ReplaceAllStringFunc(v.Value, func(use string) string { return vars[strings.Trim(use, "$()")] })
		}
	}
	for _, m := range c.VolumeMounts {
		there := r.mounted(t, w, m.Name, a, dir)
		for name, value := range vars {
			if rest, ok := strings.CutPrefix(value, m.MountPath); ok {
				vars[name] = filepath.Join(there, rest)
			}
		}
	}
	vars["ROLLCALL_LISTEN"], vars["ROLLCALL_HTTP_LISTEN"] = "127.0.0.1:0", "127.0.0.1:0"
	var all []string
	for name, value := range vars {
		all = append(all, name+"="+value)
	}
	return all
}

// mounted is where the content of a volume is.
func (r *rendering) mounted(t *testing.T, w *workload, name string, a authority, dir string) string {
	t.Helper()
	there := filepath.Join(dir, name)
	if err := os.MkdirAll(there, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, v := range w.pod().Volumes {
		if v.Name == name && v.Secret != nil {
			return filepath.Join(string(a), v.Secret.SecretName)
		}
		if v.Name != name || v.ConfigMap == nil {
			continue
		}
		for _, m := range r.configs {
			for key, text := range m.Data {
				if m.Name != v.ConfigMap.Name {
					continue
				}
				if err := os.WriteFile(filepath.Join(there, key), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return there
}

// An authority is the directory of one, with a directory for each Secret that it
// has issued.
type authority string

// newAuthority issues what the README tells to make, and what etcd would issue.
func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority(t.TempDir())
	for _, args := range [][]string{{"init", string(a), "--trust-domain", "cluster.local"}, {"init", a.file("etcd")}} {
		a.rollcall(t, args...)
	}
	a.rollcall(t, "issue", a.file("etcd"), "--role", "registry", "--id", "registry", "--out", a.file("etcd-client-tls"))
	rows := documented(t)
	if len(rows) == 0 {
		t.Fatal("the README tells of no certificates")
	}
	for _, d := range rows {
		role, id, _ := strings.Cut(d.identity, "/")
		args := []string{"issue", string(a), "--role", role, "--id", id, "--out", a.file(d.secret)}
		for _, name := range d.names {
			args = append(args, "--dns", name)
		}
		a.rollcall(t, args...)
	}
	return a
}

func (a authority) file(name ...string) string {
	return filepath.Join(append([]string{string(a)}, name...)...)
}

func (authority) rollcall(t *testing.T, args ...string) {
	t.Helper()
	if said, err := exec.CommandContext(t.Context(), command(t, "rollcall"), append([]string{"ca"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("rollcall ca %v: %v\n%s", args, err, said)
	}
}

// start runs a program until it says that it listens, and stops it by SIGTERM.
// It returns what the program said, and how it ended.
func start(t *testing.T, path string, environment []string) (said string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = environment
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for lines := bufio.NewScanner(io.TeeReader(stderr, &all)); lines.Scan(); {
		if strings.Contains(lines.Text(), `"msg":"listening"`) {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}
	}
	err = cmd.Wait()
	return all.String(), err
}

// The real programs take the configuration of each overlay, and would refuse a
// broken one.
func TestConfigurationIsTaken(t *testing.T) {
	a := newAuthority(t)
	for _, dir := range []string{"overlays/embedded", "overlays/etcd", "mine/etcd", "trial/embedded", "trial/etcd"} {
		r := render(t, dir)
		for _, name := range []string{"registry", "collector"} {
			t.Run(dir+"/"+name, func(t *testing.T) {
				path, w := command(t, name), r.workload(name)
				environment := r.environment(t, w, r.container(name), a, t.TempDir())
				if said, err := start(t, path, environment); err != nil || !strings.Contains(said, `"msg":"listening"`) {
					t.Errorf("%s: %v\n%s\n%s", name, err, strings.Join(environment, "\n"), said)
				}
				if said, err := start(t, path, append(environment, "ROLLCALL_ADVERTISE_HTTP=0.0.0.0:7471")); err == nil || !strings.Contains(err.Error(), "exit status 2") {
					t.Errorf("%s takes an address that means nothing to others: %v\n%s", name, err, said)
				}
			})
		}
	}
}

// The real programs refuse what is wrong with certificates and rules, and say what.
func TestConfigurationIsRefused(t *testing.T) {
	a := newAuthority(t)
	for name, c := range map[string]struct {
		says    string
		inflict func(*rendering)
	}{
		"no mount":     {"--tls-ca: open /etc/rollcall/tls/ca.crt", func(r *rendering) { unmount(r.container("collector"), "tls") }},
		"no rules":     {"--access: open /etc/rollcall/access/access.yaml", func(r *rendering) { unmount(r.container("collector"), "access") }},
		"misspelt key": {"--tls-cert: open", func(r *rendering) { set(r.container("collector"), "ROLLCALL_TLS_CERT", "/etc/rollcall/tls/tls.cert") }},
		"both": {"--insecure with --tls-cert", func(r *rendering) {
			r.container("collector").Env = append(r.container("collector").Env, corev1.EnvVar{Name: "ROLLCALL_INSECURE", Value: "true"})
		}},
		"two of three": {"want all three or none", func(r *rendering) { unset(r.container("collector"), "ROLLCALL_TLS_KEY") }},
		"neither": {"--insecure allows it", func(r *rendering) {
			for name := range tlsVariables {
				unset(r.container("collector"), name)
			}
		}},
		"another key": {"private key does not match", func(r *rendering) {
			w := r.workload("collector")
			w.template.Spec.Volumes = append(w.template.Spec.Volumes, corev1.Volume{Name: "other", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "reader-tls"}}})
			c := r.container("collector")
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "other", MountPath: "/etc/other"})
			set(c, "ROLLCALL_TLS_KEY", "/etc/other/tls.key")
		}},
		"rules that are none": {"--access", func(r *rendering) {
			for _, m := range r.configs {
				m.Data = map[string]string{"access.yaml": strings.Replace(m.Data["access.yaml"], "role: collector", "role: collectors", 1)}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := render(t, "overlays/embedded")
			c.inflict(r)
			environment := r.environment(t, r.workload("collector"), r.container("collector"), a, t.TempDir())
			environment = append(environment, "ROLLCALL_LISTEN=127.0.0.1:0", "ROLLCALL_HTTP_LISTEN=:0")
			said, err := start(t, command(t, "collector"), environment)
			if err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(said, c.says) {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

// The hook of a collector is a command that it has, with that flag.
func TestDrainHook(t *testing.T) {
	hook := render(t, "overlays/embedded").container("collector").Lifecycle.PreStop.Exec.Command
	help, err := exec.CommandContext(t.Context(), command(t, "collector"), "drain", "--help").CombinedOutput()
	if err != nil {
		missing(t, "this collector has no command drain")
	}
	flag, _, _ := strings.Cut(hook[2], "=")
	if !strings.Contains(string(help), flag) {
		t.Errorf("collector drain has no %s:\n%s", flag, help)
	}
}
