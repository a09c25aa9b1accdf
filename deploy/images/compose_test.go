package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestComposeFiles reads both files as the Compose specification has it, and
// looks at what every service must have.
func TestComposeFiles(t *testing.T) {
	for file, services := range map[string]int{"compose.yaml": 7, "compose.fleet.yaml": 13} {
		t.Run(file, func(t *testing.T) {
			options, err := cli.NewProjectOptions([]string{"../" + file}, cli.WithName("rollcall"), cli.WithProfiles([]string{"*"}))
			if err != nil {
				t.Fatal(err)
			}
			project, err := options.LoadProject(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(project.Services) != services {
				t.Errorf("%d services, want %d", len(project.Services), services)
			}
			for name, service := range project.Services {
				checkService(t, name, service)
			}
		})
	}
}

func checkService(t *testing.T, name string, s types.ServiceConfig) {
	t.Helper()
	image, tag, _ := strings.Cut(strings.TrimPrefix(s.Image, "rollcall/"), ":")
	if !slices.ContainsFunc(catalog(), func(r recipe) bool { return r.name == image }) || tag != "dev" {
		t.Errorf("%s: image %s is none of ours", name, s.Image)
	}
	if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
		t.Errorf("%s may do more than it needs", name)
	}
	if s.Restart == "" || s.Logging == nil || s.Logging.Options["max-size"] == "" {
		t.Errorf("%s: restart is %q, logging %v", name, s.Restart, s.Logging)
	}
	if len(s.DependsOn) > 0 {
		t.Errorf("%s waits for others: everything starts in any order", name)
	}
	for _, port := range s.Ports {
		if port.HostIP != "127.0.0.1" {
			t.Errorf("%s: port %s is published on %q", name, port.Published, port.HostIP)
		}
	}
	for _, volume := range s.Volumes {
		if volume.Type == types.VolumeTypeBind && volume.Target == "/etc/rollcall" && volume.ReadOnly {
			continue // its certificate
		}
		if volume.Type != "volume" || volume.Target != dataDir {
			t.Errorf("%s: %s is mounted at %s", name, volume.Source, volume.Target)
		}
	}
}
