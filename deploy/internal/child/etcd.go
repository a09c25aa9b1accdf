package child

import (
	"path/filepath"
	"strings"
)

// PlanEtcd is how the members of an etcd are run with their data and their logs
// in a directory, one member for each pair of addresses: those for clients, which
// also tell whether it is ready, and those for each other.
func PlanEtcd(command, dir string, clients, peers []string) []*Service {
	name := func(i int) string { return "etcd-" + string(rune('a'+i)) }
	var all []string
	for i, peer := range peers {
		all = append(all, name(i)+"=http://"+peer)
	}
	members := make([]*Service, len(clients))
	for i, client := range clients {
		s := &Service{Name: name(i), HTTP: client, Log: filepath.Join(dir, name(i)+".log")}
		s.Args = []string{
			command, "--name", s.Name, "--data-dir", filepath.Join(dir, s.Name),
			"--listen-client-urls", "http://" + client, "--advertise-client-urls", "http://" + client,
			"--listen-peer-urls", "http://" + peers[i], "--initial-advertise-peer-urls", "http://" + peers[i],
			"--initial-cluster", strings.Join(all, ","), "--log-level", "warn",
		}
		members[i] = s
	}
	return members
}
