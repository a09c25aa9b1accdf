package kubernetes

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// A rendering is what kustomize makes of a directory, decoded.
type rendering struct {
	accounts     []*corev1.ServiceAccount
	services     []*corev1.Service
	configs      []*corev1.ConfigMap
	budgets      []*policyv1.PodDisruptionBudget
	policies     []*networkingv1.NetworkPolicy
	monitors     []*monitoringv1.ServiceMonitor
	issuers      []*certmanagerv1.Issuer
	certificates []*certmanagerv1.Certificate
	workloads    []*workload
	names        []string // kind namespace/name of each object
}

// A workload is a StatefulSet or a Deployment.
type workload struct {
	metav1.ObjectMeta

	replicas    int32
	selector    *metav1.LabelSelector
	template    *corev1.PodTemplateSpec
	serviceName string // of a StatefulSet
	claims      []corev1.PersistentVolumeClaim
}

// pod returns the specification of its pods.
func (w *workload) pod() *corev1.PodSpec { return &w.template.Spec }

// containers are all containers of its pods.
func (w *workload) containers() []*corev1.Container {
	var all []*corev1.Container
	for i := range w.pod().InitContainers {
		all = append(all, &w.pod().InitContainers[i])
	}
	for i := range w.pod().Containers {
		all = append(all, &w.pod().Containers[i])
	}
	return all
}

// workload finds one by its name.
func (r *rendering) workload(name string) *workload {
	i := slices.IndexFunc(r.workloads, func(w *workload) bool { return w.Name == name })
	if i < 0 {
		panic("no workload " + name)
	}
	return r.workloads[i]
}

// serializer decodes YAML and refuses unknown and duplicate fields.
func serializer(t *testing.T) *json.Serializer {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
		monitoringv1.AddToScheme, certmanagerv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
}

// decode decodes every document of a text.
func decode(s *json.Serializer, text []byte) ([]runtime.Object, error) {
	var objects []runtime.Object
	for reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		object, _, err := s.Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, document)
		}
		objects = append(objects, object)
	}
}

// sorted puts decoded objects in their places.
func sorted(objects []runtime.Object) (*rendering, error) {
	r := &rendering{}
	for _, object := range objects {
		switch o := object.(type) {
		case *corev1.ServiceAccount:
			r.accounts = append(r.accounts, o)
		case *corev1.Service:
			r.services = append(r.services, o)
		case *corev1.ConfigMap:
			r.configs = append(r.configs, o)
		case *policyv1.PodDisruptionBudget:
			r.budgets = append(r.budgets, o)
		case *networkingv1.NetworkPolicy:
			r.policies = append(r.policies, o)
		case *monitoringv1.ServiceMonitor:
			r.monitors = append(r.monitors, o)
		case *certmanagerv1.Issuer:
			r.issuers = append(r.issuers, o)
		case *certmanagerv1.Certificate:
			r.certificates = append(r.certificates, o)
		case *appsv1.StatefulSet:
			r.workloads = append(r.workloads, &workload{
				ObjectMeta: o.ObjectMeta, replicas: replicas(o.Spec.Replicas), selector: o.Spec.Selector,
				template: &o.Spec.Template, serviceName: o.Spec.ServiceName, claims: o.Spec.VolumeClaimTemplates,
			})
		case *appsv1.Deployment:
			r.workloads = append(r.workloads, &workload{
				ObjectMeta: o.ObjectMeta, replicas: replicas(o.Spec.Replicas), selector: o.Spec.Selector, template: &o.Spec.Template,
			})
		default:
			return nil, fmt.Errorf("%v is of no kind that is expected here", object.GetObjectKind().GroupVersionKind())
		}
		meta, ok := object.(metav1.Object)
		if !ok {
			return nil, fmt.Errorf("%T has no name", object)
		}
		r.names = append(r.names, fmt.Sprintf("%s %s/%s", object.GetObjectKind().GroupVersionKind().Kind, meta.GetNamespace(), meta.GetName()))
	}
	return r, nil
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// tree copies the manifests into memory, where a test may add its own.
func tree(t *testing.T) filesys.FileSystem {
	t.Helper()
	files := filesys.MakeFsInMemory()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.Contains(path, string(filepath.Separator)) {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return files.WriteFile("/manifests/"+filepath.ToSlash(path), text)
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// build renders a directory of the tree.
func build(files filesys.FileSystem, dir string, s *json.Serializer) (*rendering, error) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, "/manifests/"+dir)
	if err != nil {
		return nil, err
	}
	text, err := resources.AsYaml()
	if err != nil {
		return nil, err
	}
	objects, err := decode(s, text)
	if err != nil {
		return nil, err
	}
	return sorted(objects)
}

// users are how somebody uses an overlay, by the first element of a directory.
var users = map[string]string{"mine": mine, "issued": issued, "trial": trial, "trial-alone": trialAlone}

// mine has a namespace, images, rules and components of their own choice.
const mine = `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: metrics
resources: [../overlays/%s]
components: [../components/servicemonitor, ../components/cert-manager]
transformers: [../components/cert-manager/namespace]
configMapGenerator:
- {name: access, behavior: merge, files: [access.yaml]}
images:
- {name: rollcall/registry, newName: images.example/rollcall/registry, newTag: v9}
- {name: rollcall/collector, newName: images.example/rollcall/collector, newTag: v9}
`

// mineAccess are rules of their own.
const mineAccess = `
identities:
- {spiffe: spiffe://cluster.local/rollcall/collector/collector, role: collector, ids: [collector-*]}
- {spiffe: 'spiffe://cluster.local/rollcall/{role}/{id}'}
`

// issued is an overlay as it is, with certificates.
const issued = `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: rollcall
resources: [../overlays/%s]
components: [../components/cert-manager]
`

// trial is in plain text.
const trial = `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: trial
resources: [../overlays/%s]
components: [../components/servicemonitor, ../components/insecure]
`

// trialAlone is the same without another component.
const trialAlone = `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: trial
resources: [../overlays/%s]
components: [../components/insecure]
`

// directories are all that is rendered: the overlays as they are, and as
// somebody uses them.
func directories() []string {
	return []string{
		"overlays/embedded", "overlays/etcd", "mine/embedded", "mine/etcd", "issued/embedded", "issued/etcd", "trial/embedded", "trial/etcd",
		"trial-alone/embedded", "examples/sidecar",
	}
}

// render renders one of the directories.
func render(t *testing.T, dir string) *rendering {
	t.Helper()
	files := tree(t)
	user, overlay, _ := strings.Cut(dir, "/")
	if kustomization, ok := users[user]; ok {
		dir = user
		for name, text := range map[string][]byte{
			"kustomization.yaml": fmt.Appendf(nil, kustomization, overlay), "access.yaml": []byte(mineAccess),
		} {
			if err := files.WriteFile("/manifests/"+user+"/"+name, text); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := build(files, dir, serializer(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The base and each rendering decode, and each is of the namespace and the
// images that were asked for.
func TestRender(t *testing.T) {
	for dir, want := range map[string]struct{ namespace, registry string }{
		"base":              {"", "rollcall/registry"},
		"overlays/embedded": {"rollcall", "rollcall/registry:dev"},
		"overlays/etcd":     {"rollcall", "rollcall/registry:dev"},
		"mine/embedded":     {"metrics", "images.example/rollcall/registry:v9"},
		"mine/etcd":         {"metrics", "images.example/rollcall/registry:v9"},
		"trial/etcd":        {"trial", "rollcall/registry:dev"},
	} {
		r := render(t, dir)
		for _, name := range r.names {
			if _, namespaced, _ := strings.Cut(name, " "); !strings.HasPrefix(namespaced, want.namespace+"/") {
				t.Errorf("%s: %s is not in %q", dir, name, want.namespace)
			}
		}
		if got := r.workload("registry").pod().Containers[0].Image; got != want.registry {
			t.Errorf("%s: the registry's image is %s, want %s", dir, got, want.registry)
		}
	}
}

// notObjects are files that are no objects of Kubernetes: rules, a transformer, and
// patches that take away.
var notObjects = []string{
	"base/access.yaml", "components/cert-manager/namespace/names.yaml", "components/insecure/registry.yaml", "components/insecure/collector.yaml",
}

// What is written here decodes strictly before kustomize has had it, which keeps
// one of two fields of the same name.
func TestSources(t *testing.T) {
	s, decoded := serializer(t), 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" || entry.Name() == "kustomization.yaml" || slices.Contains(notObjects, filepath.ToSlash(path)) {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		objects, err := decode(s, text)
		decoded += len(objects)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil || decoded < 10 {
		t.Errorf("%d objects, error %v", decoded, err)
	}
}

// The decoder refuses what it is there to refuse.
func TestStrict(t *testing.T) {
	for name, text := range map[string]string{
		"unknown field":   "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {portz: []}}",
		"other case":      "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ClusterIP: None}}",
		"duplicate field": "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: None}\nspec: {}\n",
		"wrong type":      "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 7}}",
		"unknown kind":    "{apiVersion: v1, kind: Serviec, metadata: {name: a}}",
		"unknown version": "{apiVersion: apps/v1beta1, kind: StatefulSet, metadata: {name: a}}",
	} {
		if objects, err := decode(serializer(t), []byte(text)); err == nil {
			t.Errorf("%s: decoded as %v", name, objects)
		}
	}
}
