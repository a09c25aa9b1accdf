package placement_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// figures are what a scheme does to a fleet: spreads are the highest load over
// the mean, shares are of all producers, in percent.
type figures struct {
	spread float64 // at first

	leave, leaveBeyond float64 // moved when a collector leaves: all, and what was not its own
	leaveSpread        float64

	back, backLoad float64 // moved when it returns: of producers, and of load
	backSpread     float64

	join, joinLoad float64 // moved when a new one joins instead
	joinSpread     float64
}

// observe puts a scheme through what happens to a fleet.
func observe(s scheme, producers, collectors int, sigma float64, seed uint64) figures {
	w := newWorld(producers, collectors, sigma, seed)
	s.arrive(w)
	f := figures{spread: w.spread()}
	all, first := w.collectors, slices.Clone(w.owner)

	gone := all[collectors/2]
	w.collectors = slices.DeleteFunc(slices.Clone(all), func(c string) bool { return c == gone })
	s.change(w)
	f.leave, _ = moved(w, first, "")
	f.leaveBeyond, _ = moved(w, first, gone)
	f.leaveSpread = w.spread()

	without := slices.Clone(w.owner)
	w.collectors = all
	s.change(w)
	f.back, f.backLoad = moved(w, without, "")
	f.backSpread = w.spread()

	w.owner = slices.Clone(first)
	w.collectors = append(slices.Clone(all), "collector-new")
	s.change(w)
	f.join, f.joinLoad = moved(w, first, "")
	f.joinSpread = w.spread()
	return f
}

// moved is the shares of producers and of load, in percent, that are not where
// they were, leaving out those that were with one collector.
func moved(w *world, was []string, except string) (producers, load float64) {
	sum := 0.0
	for i, weight := range w.weights {
		sum += weight
		if w.owner[i] != was[i] && (except == "" || was[i] != except) {
			producers++
			load += weight
		}
	}
	return 100 * producers / float64(len(was)), 100 * load / sum
}

const seeds = 9

// typical is the median of each figure over some seeds.
func typical(s scheme, producers, collectors int, sigma float64) figures {
	var runs []figures
	for seed := range uint64(seeds) {
		runs = append(runs, observe(s, producers, collectors, sigma, seed+1))
	}
	of := func(figure func(figures) float64) float64 {
		var all []float64
		for _, r := range runs {
			all = append(all, figure(r))
		}
		return median(all)
	}
	return figures{
		spread:      of(func(f figures) float64 { return f.spread }),
		leave:       of(func(f figures) float64 { return f.leave }),
		leaveBeyond: of(func(f figures) float64 { return f.leaveBeyond }),
		leaveSpread: of(func(f figures) float64 { return f.leaveSpread }),
		back:        of(func(f figures) float64 { return f.back }),
		backLoad:    of(func(f figures) float64 { return f.backLoad }),
		backSpread:  of(func(f figures) float64 { return f.backSpread }),
		join:        of(func(f figures) float64 { return f.join }),
		joinLoad:    of(func(f figures) float64 { return f.joinLoad }),
		joinSpread:  of(func(f figures) float64 { return f.joinSpread }),
	}
}

// TestNoWorseThanPeers holds what the table shows for 2,000 producers on 5
// collectors: inside the band after whatever happens, nobody moved but the
// producers of a collector that leaves, and few when one comes. A peer that then
// moves fewer leaves the fleet less even.
func TestNoWorseThanPeers(t *testing.T) {
	all := schemes()
	peers, own := all[:4], all[4:]
	for _, s := range own {
		ours := typical(s, 2_000, 5, 1)
		if most := max(ours.spread, ours.leaveSpread, ours.backSpread, ours.joinSpread); most > 1.10 {
			t.Errorf("%s: max/avg %.3f", s.name, most)
		}
		if ours.leaveBeyond > 0 || ours.back > 2.5 || ours.join > 1.5 {
			t.Errorf("%s moves too many: %+v", s.name, ours)
		}
		for _, peer := range peers {
			theirs := typical(peer, 2_000, 5, 1)
			if theirs.join <= ours.join && theirs.joinSpread <= ours.joinSpread || theirs.back <= ours.back && theirs.backSpread <= ours.backSpread {
				t.Errorf("%s: %+v\n%s: %+v", s.name, ours, peer.name, theirs)
			}
		}
	}
}

// BenchmarkTable measures no time: it logs what each scheme does to a fleet, as
// the median over seeds.
func BenchmarkTable(b *testing.B) {
	for _, size := range []struct {
		producers, collectors int
		sigma                 float64
	}{{2_000, 5, 1}, {10_000, 20, 1}, {2_000, 5, 1.25}} {
		b.Run(fmt.Sprintf("%dx%d/sigma=%v", size.producers, size.collectors, size.sigma), func(b *testing.B) {
			for b.Loop() {
				var text strings.Builder
				out := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
				fmt.Fprintln(out, "\tmax/avg\tleave: all\tbeyond\tmax/avg\treturn\tof load\tmax/avg\tjoin\tof load\tmax/avg")
				for _, s := range schemes() {
					f := typical(s, size.producers, size.collectors, size.sigma)
					fmt.Fprintf(out, "%s\t%.2f\t%.1f %%\t%.1f %%\t%.2f\t%.1f %%\t%.1f %%\t%.2f\t%.1f %%\t%.1f %%\t%.2f\n", s.name, f.spread,
						f.leave, f.leaveBeyond, f.leaveSpread, f.back, f.backLoad, f.backSpread, f.join, f.joinLoad, f.joinSpread)
				}
				out.Flush()
				b.Log("median of " + fmt.Sprint(seeds) + " seeds; shares of producers\n" + text.String())
			}
		})
	}
}
