package main

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/procfs"
)

// host tells the machine's processors, memory and load, by the names that the
// node exporter gives them. What cannot be read is left out.
type host struct {
	cpu, memory, load *prometheus.Desc
}

func newHost() *host {
	return &host{
		cpu:    prometheus.NewDesc("node_cpu_seconds_total", "Seconds the CPUs spent in each mode.", []string{"cpu", "mode"}, nil),
		memory: prometheus.NewDesc("node_memory_MemAvailable_bytes", "Memory information field MemAvailable_bytes.", nil, nil),
		load:   prometheus.NewDesc("node_load1", "1m load average.", nil, nil),
	}
}

// Describe is for prometheus.Collector.
func (h *host) Describe(ch chan<- *prometheus.Desc) {
	ch <- h.cpu
	ch <- h.memory
	ch <- h.load
}

// Collect is for prometheus.Collector.
func (h *host) Collect(ch chan<- prometheus.Metric) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return
	}
	if stat, err := fs.Stat(); err == nil {
		for i, cpu := range stat.CPU {
			for mode, seconds := range map[string]float64{
				"user": cpu.User, "system": cpu.System, "idle": cpu.Idle, "iowait": cpu.Iowait, "steal": cpu.Steal,
			} {
				ch <- prometheus.MustNewConstMetric(h.cpu, prometheus.CounterValue, seconds, strconv.FormatInt(i, 10), mode)
			}
		}
	}
	if info, err := fs.Meminfo(); err == nil && info.MemAvailableBytes != nil {
		ch <- prometheus.MustNewConstMetric(h.memory, prometheus.GaugeValue, float64(*info.MemAvailableBytes))
	}
	if load, err := fs.LoadAvg(); err == nil {
		ch <- prometheus.MustNewConstMetric(h.load, prometheus.GaugeValue, load.Load1)
	}
}
