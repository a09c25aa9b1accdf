// Package delivery tells what is lost on the way from producers to a receiver of
// remote write when that is away, slow or killed, and when the agent between them
// is: Rollcall's collector beside vmagent and the Prometheus agent, as real
// processes.
//
// Its invariant: it judges by what producers answered and by what the receiver
// has, never by what an agent says of itself, but for how much it has dropped,
// which is to be exactly what is missing.
//
// Every answer of a producer has a number, and the value of all its samples is
// this and a quarter: so each sample is known by its producer, its series and its answer. An
// answer is judged when it was sent whole, and, before a kill, more than a second
// earlier: what an agent had not read yet, it has not collected. An answer that
// the agent itself calls a failed collection (up is 0) is counted apart.
package delivery
