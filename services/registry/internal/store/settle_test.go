package store //nolint:testpackage // what it looks at is between two answers of etcd

import "testing"

// TestStandsAsWritten tells what we wrote from what others did, after etcd has
// said that there was no space.
func TestStandsAsWritten(t *testing.T) {
	put := func(key string) write { return write{key: key, value: []byte(key)} }
	stands := func(key string, modified int64) item { return item{key: key, value: []byte(key), modified: modified} }
	for name, c := range map[string]struct {
		writes []write
		found  []item
		want   int64 // 0: not ours
	}{
		"both at once":        {[]write{put("a"), put("b")}, []item{stands("a", 7), stands("b", 7)}, 7},
		"not at once":         {[]write{put("a"), put("b")}, []item{stands("a", 7), stands("b", 8)}, 0},
		"another value":       {[]write{put("a")}, []item{{key: "a", value: []byte("b"), modified: 7}}, 0},
		"one is missing":      {[]write{put("a"), put("b")}, []item{stands("a", 7), {key: "b"}}, 0},
		"and a delete":        {[]write{put("a"), {key: "b", delete: true}}, []item{stands("a", 7), {key: "b"}}, 7},
		"delete undone":       {[]write{put("a"), {key: "b", delete: true}}, []item{stands("a", 7), stands("b", 3)}, 0},
		"check holds":         {[]write{{key: "c", check: true, expect: 3}, put("a")}, []item{stands("c", 3), stands("a", 7)}, 7},
		"checked absence":     {[]write{put("a"), {key: "c", check: true}}, []item{stands("a", 7), {key: "c"}}, 7},
		"changed since":       {[]write{{key: "c", check: true, expect: 3}, put("a")}, []item{stands("c", 8), stands("a", 7)}, 7},
		"gone since":          {[]write{{key: "c", check: true, expect: 3}, put("a")}, []item{{key: "c"}, stands("a", 7)}, 7},
		"changed before":      {[]write{{key: "c", check: true, expect: 3}, put("a")}, []item{stands("c", 6), stands("a", 7)}, 0},
		"changed by the same": {[]write{{key: "c", check: true, expect: 3}, put("a")}, []item{stands("c", 7), stands("a", 7)}, 0},
		"only deletes":        {[]write{{key: "b", delete: true}}, []item{{key: "b"}}, 0},
	} {
		revision, ours := standsAsWritten(c.writes, c.found)
		if ours != (c.want != 0) || ours && revision != c.want {
			t.Errorf("%s: %d, %t; want %d", name, revision, ours, c.want)
		}
	}
}
