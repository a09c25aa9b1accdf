package placement_test

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/placement"
)

// A scheme is a way to assign producers to collectors. It is told the collectors
// that there are, and who has whom, and changes the latter.
type scheme struct {
	name   string
	arrive func(*world)
	change func(*world)
}

// A world is some producers, with who has them, and the collectors there are.
type world struct {
	weights    []float64
	owner      []string // of each producer, or empty
	collectors []string // in order
	random     *rand.Rand
}

func newWorld(producers, collectors int, sigma float64, seed uint64) *world {
	w := &world{
		weights: lognormal(producers, sigma, seed), owner: make([]string, producers),
		random: rand.New(rand.NewPCG(seed, 2)),
	}
	for i := range collectors {
		w.collectors = append(w.collectors, fmt.Sprintf("collector-%d", i))
	}
	return w
}

// spread is the highest load over the mean.
func (w *world) spread() float64 {
	loads, sum := map[string]float64{}, 0.0
	for i, weight := range w.weights {
		loads[w.owner[i]] += weight
		sum += weight
	}
	most := 0.0
	for _, load := range loads {
		most = max(most, load)
	}
	return most / (sum / float64(len(w.collectors)))
}

func name(producer int) string { return fmt.Sprintf("job/producer-%d", producer) }

// hash is FNV-1a, stirred: by itself it spreads names that differ at their ends
// badly.
func hash(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// stateless is a scheme that looks at names only, and so does the same whatever
// happened.
func stateless(name string, assign func(*world)) scheme { return scheme{name, assign, assign} }

// hashmod is Prometheus's: the hash modulo the number of collectors.
func hashmod(w *world) {
	for i := range w.owner {
		w.owner[i] = w.collectors[hash(name(i))%uint64(len(w.collectors))]
	}
}

// rendezvous is highest random weight: the collector whose hash with the
// producer is highest.
func rendezvous(w *world) {
	for i := range w.owner {
		w.owner[i] = slices.MaxFunc(w.collectors, func(a, b string) int { return cmp.Compare(hash(a, name(i)), hash(b, name(i))) })
	}
}

// ring is consistent hashing: the collector of the next of its 512 tokens.
func ring(w *world) {
	type token struct {
		at uint64
		of string
	}
	var tokens []token
	for _, c := range w.collectors {
		for n := range 512 {
			tokens = append(tokens, token{hash(c, fmt.Sprint(n)), c})
		}
	}
	slices.SortFunc(tokens, func(a, b token) int { return cmp.Compare(a.at, b.at) })
	for i := range w.owner {
		at, _ := slices.BinarySearchFunc(tokens, hash(name(i)), func(t token, h uint64) int { return cmp.Compare(t.at, h) })
		w.owner[i] = tokens[at%len(tokens)].of
	}
}

// leastWeighted is the OpenTelemetry target allocator's default of that name:
// who has no collector goes, as it comes, to the one with the fewest; nobody is
// moved.
func leastWeighted(w *world) {
	count := map[string]int{}
	for _, c := range w.collectors {
		count[c] = 0
	}
	for i, c := range w.owner {
		if _, there := count[c]; there {
			count[c]++
		} else {
			w.owner[i] = ""
		}
	}
	for _, i := range w.random.Perm(len(w.owner)) {
		if w.owner[i] == "" {
			w.owner[i] = slices.MinFunc(w.collectors, func(a, b string) int { return cmp.Compare(count[a], count[b]) })
			count[w.owner[i]]++
		}
	}
}

// arriveUnweighed has the producers come one by one before anybody knows what
// they weigh.
func arriveUnweighed(w *world) {
	var loads []placement.Load
	for _, c := range w.collectors {
		loads = append(loads, placement.Load{Collector: assignment.CollectorID(c)})
	}
	chooser := placement.NewChooser(loads, 0)
	for _, i := range w.random.Perm(len(w.owner)) {
		w.owner[i] = string(chooser.Next(1, ""))
	}
	sticky(w)
}

// sticky is this package, with its default band.
func sticky(w *world) {
	f := &fleet{options: placement.Options{Rebalance: true}}
	for _, c := range w.collectors {
		f.collectors = append(f.collectors, placement.Collector{ID: assignment.CollectorID(c), Open: true})
	}
	for i, weight := range w.weights {
		f.producers = append(f.producers, placement.Producer{
			ID: assignment.ProducerID(name(i)), Weight: weight, Owner: assignment.CollectorID(w.owner[i]),
		})
	}
	f.apply(f.plan())
	for i := range f.producers {
		w.owner[i] = string(f.producers[i].Owner)
	}
}

func schemes() []scheme {
	return []scheme{
		stateless("hashmod", hashmod),
		stateless("rendezvous", rendezvous),
		stateless("ring of 512 tokens", ring),
		{"least-weighted, OTel", leastWeighted, leastWeighted},
		{"ours, weights known", sticky, sticky},
		{"ours, weights learnt", arriveUnweighed, sticky},
	}
}
