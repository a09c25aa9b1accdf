package store

import (
	"fmt"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// Every key begins with keyPrefix; keyEnd is the first one after all of them.
const (
	keyPrefix = "/rollcall/v1/"
	keyEnd    = "/rollcall/v10"
)

const epochKey = keyPrefix + "epoch"

// single names the key of a kind of which there is one record.
func single(kind roster.Kind) (string, bool) {
	switch kind {
	case roster.KindEpoch:
		return epochKey, true
	case roster.KindLeader:
		return keyPrefix + "leader", true
	case roster.KindExpiry:
		return keyPrefix + "expiry", true
	default:
		return "", false
	}
}

// folder is what the keys of a kind begin with. A single one has none.
func folder(kind roster.Kind) (string, bool) {
	switch kind {
	case roster.KindProducer:
		return keyPrefix + "producers/", true
	case roster.KindCollector:
		return keyPrefix + "collectors/", true
	case roster.KindSession:
		return keyPrefix + "sessions/", true
	case roster.KindAck:
		return keyPrefix + "acks/", true
	case roster.KindRemoved:
		return keyPrefix + "removed/", true
	case roster.KindSuspect:
		return keyPrefix + "suspects/", true
	default:
		return "", false
	}
}

// formatKey is where a record stands in the store.
func formatKey(key roster.Key) (string, error) {
	if name, ok := single(key.Kind); ok && key.ID == "" {
		return name, nil
	}
	in, ok := folder(key.Kind)
	if !ok {
		return "", fmt.Errorf("%w: no key for kind %d and id %q", ErrInvalid, key.Kind, key.ID)
	}
	if err := checkKeyID(key); err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return in + key.ID, nil
}

// parseKey is the inverse of formatKey. A key that only another version knows
// is not known, which is no error: it is nobody's record here.
func parseKey(s string) (key roster.Key, known bool, err error) {
	rest, ok := strings.CutPrefix(s, keyPrefix)
	if !ok {
		return roster.Key{}, false, nil
	}
	for _, kind := range []roster.Kind{roster.KindEpoch, roster.KindLeader, roster.KindExpiry} {
		if name, _ := single(kind); s == name {
			return roster.Key{Kind: kind}, true, nil
		}
	}
	// Only the first slash ends the name of the kind: a producer's id may have
	// slashes of its own.
	kind, id, ok := strings.Cut(rest, "/")
	if !ok {
		return roster.Key{}, false, nil
	}
	id = strings.Clone(id) // whoever keeps the id shall not keep the whole key
	switch kind {
	case "producers":
		key = roster.ProducerKey(assignment.ProducerID(id))
	case "collectors":
		key = roster.CollectorKey(assignment.CollectorID(id))
	case "sessions":
		key = roster.SessionKey(assignment.CollectorID(id))
	case "acks":
		key = roster.AckKey(assignment.CollectorID(id))
	case "removed":
		key = roster.RemovedKey(assignment.ProducerID(id))
	case "suspects":
		key = roster.SuspectKey(assignment.ProducerID(id))
	default:
		return roster.Key{}, false, nil
	}
	if err := checkKeyID(key); err != nil {
		return roster.Key{}, false, fmt.Errorf("%w: key %q: %w", ErrUndecodable, s, err)
	}
	return key, true, nil
}

func checkKeyID(key roster.Key) error {
	var err error
	if key.Kind == roster.KindProducer || key.Kind == roster.KindRemoved || key.Kind == roster.KindSuspect {
		_, err = assignment.ParseProducerID(key.ID)
	} else {
		_, err = assignment.ParseCollectorID(key.ID)
	}
	return err
}
