package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/grpc"
)

type subscribe struct {
	Collector string `arg:"" help:"Whose assignments. It notices nothing of this."`
	Once      bool   `help:"End after the first seal."`
	answerFlags
	registryFlags
}

// Help tells more than one line.
func (c *subscribe) Help() string {
	return "Prints the frames of the collector's stream, one a line, and checks them by the rules of the protocol: order, counts and digest. " +
		"The registry takes this for looking only; the collector's own stream stands. " +
		"Ends with exit code 1 and the reason at the first rule that is broken, and when the stream ends."
}

// Run watches a stream.
func (c *subscribe) Run(ctx context.Context, o output) error {
	return dial(ctx, &c.ClientFlags, c.Registry, c.CallTimeout, func(ctx context.Context, conn *grpc.ClientConn) error {
		stream, err := registryv1.NewAssignmentServiceClient(conn).Subscribe(ctx,
			&registryv1.SubscribeRequest{CollectorId: c.Collector, Observe: true})
		if err != nil {
			return err
		}
		var v verifier
		for {
			m, err := stream.Recv()
			switch {
			case ctx.Err() != nil:
				return nil //nolint:nilerr // asked to stop
			case errors.Is(err, io.EOF):
				return errors.New("the stream ended; that says nothing about the set")
			case err != nil:
				return err
			}
			sealed, err := c.frame(o, &v, m)
			if err != nil {
				return err
			}
			if sealed && c.Once {
				return nil
			}
		}
	})
}

// frame prints and checks one frame, and tells whether it sealed a snapshot.
func (c *subscribe) frame(o output, v *verifier, m *registryv1.SubscribeResponse) (bool, error) {
	if c.Output == "json" {
		if err := o.json(m); err != nil {
			return false, err
		}
	}
	f, err := wire.DecodeFrame(m)
	if err != nil {
		return false, fmt.Errorf("the stream breaks the protocol: %w", err)
	}
	if c.Output != "json" {
		if err := printFrame(o.out, f); err != nil {
			return false, err
		}
	}
	sealed, err := v.take(f)
	if err != nil {
		return false, fmt.Errorf("the stream breaks the protocol: %w", err)
	}
	if !sealed {
		return false, nil
	}
	verdict := o.out
	if c.Output == "json" {
		verdict = o.remarks
	}
	_, err = fmt.Fprintf(verdict, "sealed: %d assignments, digest ok\n", v.set.Len())
	return true, err
}

// printFrame writes a frame for people: a line, and one more for each member of
// a chunk.
func printFrame(w io.Writer, frame assignment.Frame) error {
	var err error
	switch f := frame.(type) {
	case *assignment.Begin:
		_, err = fmt.Fprintf(w, "begin      snapshot=%d scope=%s revision=%d epoch=%s announced=%d heartbeat=%v registry=%s\n",
			f.SnapshotID, short(registryv1.SnapshotScope(f.Scope).String(), "SNAPSHOT_SCOPE_"), f.Revision, f.Epoch,
			f.ExpectedUpserts, f.HeartbeatInterval, f.RegistryInstanceID)
	case *assignment.Chunk:
		return printChunk(w, f)
	case *assignment.End:
		_, err = fmt.Fprintf(w, "end        snapshot=%d revision=%d chunks=%d assignments=%d removals=%d set=%d digest=%016x\n",
			f.SnapshotID, f.Revision, f.Chunks, f.Upserts, f.Removals, f.SetCount, uint64(f.SetDigest))
	case *assignment.Heartbeat:
		_, err = fmt.Fprintf(w, "heartbeat  revision=%d set=%d digest=%016x acknowledged=%d\n",
			f.Revision, f.SetCount, uint64(f.SetDigest), f.AcknowledgedRevision)
	case *assignment.GoAway:
		_, err = fmt.Fprintf(w, "go away    %s, come back after %v to %v\n", f.Message, f.RetryAfterMin, f.RetryAfterMax)
	default:
		_, err = fmt.Fprintln(w, "unknown    a frame of a newer registry, ignored")
	}
	return err
}

func printChunk(w io.Writer, f *assignment.Chunk) error {
	_, err := fmt.Fprintf(w, "chunk      snapshot=%d sequence=%d assignments=%d removals=%d\n",
		f.SnapshotID, f.Sequence, len(f.Assignments), len(f.Removals))
	for _, a := range f.Assignments {
		if err == nil {
			_, err = fmt.Fprintf(w, "  + %s %s every %v version=%016x %s\n", a.ProducerID, a.Endpoint, a.Interval,
				uint64(a.Version), labelText(wire.EncodeLabels(a.Labels)))
		}
	}
	for _, r := range f.Removals {
		if err == nil {
			_, err = fmt.Fprintf(w, "  - %s %s at revision %d\n", r.ProducerID,
				short(registryv1.RemovalCause(r.Cause).String(), "REMOVAL_CAUSE_"), r.Revision)
		}
	}
	return err
}
