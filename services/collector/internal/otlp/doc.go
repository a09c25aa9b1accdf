// Package otlp speaks OTLP metrics over gRPC to a receiver.
//
// What a sample becomes is decided by the metadata of its series, as
// OpenTelemetry's page "Prometheus and OpenMetrics Compatibility" says: names
// stay as they are, counters are monotonic sums, the series of one histogram or
// summary are one point, and the labels job and instance are the resource.
//
// Two things are not as on that page. A start time that nobody tells is not left
// out, as many receivers need one: it is the time of the first point, and after
// a fall that of the point before. And the resource lacks server.address,
// server.port and url.scheme: a sample does not know from where it was collected.
//
// Its invariant: what OTLP cannot say truly is not said. It is counted as
// unsupported; no point is made up from a part of its samples.
//
// The messages are written by hand, from back to front: the attributes of a
// series are encoded once, and a sample costs a copy of them. The tests read
// all that is written with OpenTelemetry's own code.
package otlp
