package assignment_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

func whole() *assignment.Assignment {
	return &assignment.Assignment{
		ProducerID: "a", Version: 7, Role: assignment.RoleOwner, Endpoint: "http://h/metrics",
		Interval: 15 * time.Second, Timeout: time.Second,
		Labels:      []assignment.Label{{Name: "job", Value: "api"}, {Name: "zone", Value: "x"}},
		HonorLabels: true, IgnoreTimestamps: true,
		Limits:         assignment.Limits{MaxBodyBytes: 1, MaxSamples: 2, MaxLabels: 3, MaxLabelValueBytes: 4},
		FallbackFormat: assignment.FormatOpenMetrics, Credential: "c", TLSServerName: "h.example", Permanent: true,
	}
}

// change makes a value another one of its type.
func change(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	default:
		t.Fatalf("this test must learn to change a %v", v.Type())
	}
}

// Every field asks for other work, but version and role: also one that is added
// some day.
func TestSameWorkSeesEveryField(t *testing.T) {
	if !whole().SameWork(whole()) {
		t.Fatal("equal assignments ask for other work")
	}
	check := func(name string, want bool, of func(*assignment.Assignment) reflect.Value) {
		a := whole()
		change(t, of(a))
		if got := a.SameWork(whole()); got != want {
			t.Errorf("%s changed: SameWork = %v, want %v", name, got, want)
		}
		if got := whole().SameWork(a); got != want {
			t.Errorf("%s changed, the other way round: SameWork = %v, want %v", name, got, want)
		}
	}
	for field := range reflect.TypeFor[assignment.Assignment]().Fields() {
		switch field.Name {
		case "Labels":
			check("a label's value", false, func(a *assignment.Assignment) reflect.Value {
				return reflect.ValueOf(&a.Labels[1].Value).Elem()
			})
			a := whole()
			a.Labels = a.Labels[:1]
			if a.SameWork(whole()) {
				t.Error("a label less is the same work")
			}
		case "Limits":
			for limit := range field.Type.Fields() {
				check(limit.Name, false, func(a *assignment.Assignment) reflect.Value {
					return reflect.ValueOf(&a.Limits).Elem().FieldByName(limit.Name)
				})
			}
		default:
			check(field.Name, field.Name == "Version" || field.Name == "Role", func(a *assignment.Assignment) reflect.Value {
				return reflect.ValueOf(a).Elem().FieldByName(field.Name)
			})
		}
	}
}
