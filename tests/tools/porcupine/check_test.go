package main

import (
	"fmt"
	"math/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestHistories(t *testing.T) {
	cases := []struct {
		name, want, history string
	}{
		{"nothing", "ok", ``},
		{"a put is read", "ok", `
{"op":"put","key":"a","value":"1","call":1,"return":2,"revision":2}
{"op":"get","key":"a","kv":{"value":"1","mod_revision":2,"version":1},"call":3,"return":4,"revision":2}`},
		{"a stale read", "illegal", `
{"op":"put","key":"a","value":"1","call":1,"return":2}
{"op":"put","key":"a","value":"2","call":3,"return":4}
{"op":"get","key":"a","kv":{"value":"1"},"call":5,"return":6}`},
		{"a read beside the put sees either", "ok", `
{"op":"put","key":"a","value":"1","call":1,"return":9}
{"op":"get","key":"a","kv":null,"call":2,"return":3}
{"op":"get","key":"a","kv":{"value":"1"},"call":4,"return":5}`},
		{"a read beside the put goes back", "illegal", `
{"op":"put","key":"a","value":"1","call":1,"return":9}
{"op":"get","key":"a","kv":{"value":"1"},"call":2,"return":3}
{"op":"get","key":"a","kv":null,"call":4,"return":5}`},
		{"a lost write", "illegal", `
{"op":"put","key":"a","value":"1","call":1,"return":2}
{"op":"get","key":"a","kv":null,"call":3,"return":4}`},
		{"a put without answer happened", "ok", `
{"op":"put","key":"a","value":"1","call":1}
{"op":"get","key":"a","kv":{"value":"1","mod_revision":7},"call":3,"return":4}`},
		{"a put without answer never happened", "ok", `
{"op":"put","key":"a","value":"1","call":1,"return":null}
{"op":"get","key":"a","kv":null,"call":3,"return":4}`},
		{"a put without answer happens late", "ok", `
{"op":"put","key":"a","value":"1","call":1}
{"op":"get","key":"a","kv":null,"call":3,"return":4}
{"op":"get","key":"a","kv":{"value":"1"},"call":5,"return":6}`},
		{"a put without answer happens twice", "illegal", `
{"op":"put","key":"a","value":"1","call":1}
{"op":"get","key":"a","kv":{"value":"1"},"call":3,"return":4}
{"op":"put","key":"a","value":"2","call":5,"return":6}
{"op":"get","key":"a","kv":{"value":"1"},"call":7,"return":8}`},
		{"one write has two revisions", "illegal", `
{"op":"put","key":"a","value":"1","call":1}
{"op":"get","key":"a","kv":{"value":"1","mod_revision":7},"call":3,"return":4}
{"op":"get","key":"a","kv":{"value":"1","mod_revision":8},"call":5,"return":6}`},
		{"a read of the wrong version", "illegal", `
{"op":"put","key":"a","value":"1","call":1,"return":2}
{"op":"put","key":"a","value":"2","call":3,"return":4}
{"op":"get","key":"a","kv":{"value":"2","version":1},"call":5,"return":6}`},
		{"a delete starts again", "ok", `
{"op":"put","key":"a","value":"1","call":1,"return":2,"revision":2}
{"op":"delete","key":"a","deleted":1,"call":3,"return":4,"revision":3}
{"op":"delete","key":"a","deleted":0,"call":5,"return":6,"revision":3}
{"op":"put","key":"a","value":"2","call":7,"return":8,"revision":4}
{"op":"get","key":"a","kv":{"value":"2","mod_revision":4,"version":1},"call":9,"return":10,"revision":4}`},
		{"a delete of nothing says one", "illegal", `
{"op":"delete","key":"a","deleted":1,"call":3,"return":4}`},
		{"one of two creations", "ok", `
{"op":"cas","key":"a","expect":{"mod_revision":0},"value":"1","succeeded":true,"call":1,"return":5,"revision":2}
{"op":"cas","key":"a","expect":{"mod_revision":0},"value":"2","succeeded":false,"read":true,"kv":{"value":"1","mod_revision":2},"call":1,"return":5,"revision":2}`},
		{"two creations", "illegal", `
{"op":"cas","key":"a","expect":{"mod_revision":0},"value":"1","succeeded":true,"call":1,"return":5}
{"op":"cas","key":"a","expect":{"mod_revision":0},"value":"2","succeeded":true,"call":1,"return":5}`},
		{"two updates of one revision", "illegal", `
{"op":"put","key":"a","value":"0","call":1,"return":2,"revision":2}
{"op":"cas","key":"a","expect":{"mod_revision":2},"value":"1","succeeded":true,"call":3,"return":9,"revision":3}
{"op":"cas","key":"a","expect":{"mod_revision":2},"value":"2","succeeded":true,"call":3,"return":9,"revision":4}`},
		{"a cas after one without answer", "ok", `
{"op":"cas","key":"a","expect":{"mod_revision":0},"value":"1","call":1}
{"op":"cas","key":"a","expect":{"mod_revision":5},"value":"2","succeeded":true,"call":3,"return":4,"revision":6}
{"op":"get","key":"a","kv":{"value":"2","mod_revision":6,"version":2},"call":5,"return":6,"revision":6}`},
		{"a cas that should have failed", "illegal", `
{"op":"put","key":"a","value":"0","call":1,"return":2}
{"op":"cas","key":"a","expect":{"value":"x"},"value":"1","succeeded":true,"call":3,"return":4}`},
		{"a cas that should have succeeded", "illegal", `
{"op":"put","key":"a","value":"0","call":1,"return":2}
{"op":"cas","key":"a","expect":{"version":1},"value":"1","succeeded":false,"call":3,"return":4}`},
		{"one revision for two changes", "illegal", `
{"op":"put","key":"a","value":"1","call":1,"return":9,"revision":2}
{"op":"put","key":"b","value":"1","call":1,"return":9,"revision":2}`},
		{"the store's revision goes back between keys", "illegal", `
{"op":"put","key":"a","value":"1","call":1,"return":2,"revision":9}
{"op":"put","key":"b","value":"1","call":3,"return":4,"revision":8}`},
		{"a revision shown before it is made", "illegal", `
{"op":"get","key":"a","kv":null,"call":1,"return":2,"revision":9}
{"op":"put","key":"b","value":"1","call":3,"return":4,"revision":9}`},
		{"a transaction of two keys is seen whole", "ok", `
{"op":"cas","key":"g/a","also":["g/b"],"expect":{"mod_revision":0},"value":"1","succeeded":true,"call":1,"return":2,"revision":2}
{"op":"list","key":"g/","kvs":{"g/a":{"value":"1","mod_revision":2,"version":1},"g/b":{"value":"1","mod_revision":2,"version":1}},"call":3,"return":4,"revision":2}`},
		{"half of a transaction", "illegal", `
{"op":"cas","key":"g/a","also":["g/b"],"expect":{"mod_revision":0},"value":"1","succeeded":true,"call":1,"return":9,"revision":2}
{"op":"list","key":"g/","kvs":{"g/a":{"value":"1"}},"call":3,"return":4}`},
		{"a clear takes all there is", "ok", `
{"op":"put","key":"g/a","value":"1","call":1,"return":2,"revision":2}
{"op":"put","key":"g/b","value":"1","call":3,"return":4,"revision":3}
{"op":"clear","key":"g/","deleted":2,"call":5,"return":6,"revision":4}
{"op":"list","key":"g/","kvs":{},"call":7,"return":8,"revision":4}`},
		{"a clear counts what is not there", "illegal", `
{"op":"put","key":"g/a","value":"1","call":1,"return":2}
{"op":"clear","key":"g/","deleted":2,"call":5,"return":6}`},
		{"a clear leaves a key", "illegal", `
{"op":"put","key":"g/a","value":"1","call":1,"return":2}
{"op":"clear","key":"g/","deleted":1,"call":5,"return":6}
{"op":"get","key":"g/a","kv":{"value":"1"},"call":7,"return":8}`},
		{"a revoke takes what hangs on the lease", "ok", `
{"op":"put","key":"g/a","value":"1","lease":7,"call":1,"return":2,"revision":2}
{"op":"put","key":"g/b","value":"1","lease":7,"call":3,"return":4,"revision":3}
{"op":"put","key":"g/b","value":"2","call":5,"return":6,"revision":4}
{"op":"revoke","key":"g/","lease":7,"call":7,"return":8,"revision":5}
{"op":"list","key":"g/","kvs":{"g/b":{"value":"2","mod_revision":4,"version":2}},"call":9,"return":10,"revision":5}`},
		{"a revoke takes a key that was put again", "illegal", `
{"op":"put","key":"g/a","value":"1","lease":7,"call":1,"return":2}
{"op":"put","key":"g/a","value":"2","call":3,"return":4}
{"op":"revoke","key":"g/","lease":7,"call":5,"return":6}
{"op":"get","key":"g/a","kv":null,"call":7,"return":8}`},
		{"a revoke without answer happens later", "ok", `
{"op":"put","key":"g/a","value":"1","lease":7,"call":1,"return":2}
{"op":"revoke","key":"g/","lease":7,"call":3}
{"op":"get","key":"g/a","kv":{"value":"1"},"call":5,"return":6}
{"op":"get","key":"g/a","kv":null,"call":7,"return":8}`},
		{"a permitted user", "ok", `
{"op":"permit","key":"g/","may":"w","had":false,"call":1,"return":2,"revision":1}
{"op":"put","key":"g/a","value":"1","user":true,"call":3,"return":4,"revision":2}
{"op":"get","key":"g/a","user":true,"denied":true,"call":5,"return":6}
{"op":"permit","key":"g/","may":"r","call":7,"return":8,"revision":2}
{"op":"list","key":"g/","user":true,"kvs":{"g/a":{"value":"1","mod_revision":2,"version":1}},"call":9,"return":10,"revision":2}
{"op":"put","key":"g/a","value":"2","user":true,"denied":true,"call":11,"return":12}
{"op":"cas","key":"g/a","expect":{"mod_revision":2},"value":"3","user":true,"denied":true,"call":13,"return":14}
{"op":"permit","key":"g/","may":"","had":true,"call":15,"return":16,"revision":2}
{"op":"permit","key":"g/","may":"","had":false,"call":17,"return":18}
{"op":"clear","key":"g/","user":true,"denied":true,"call":19,"return":20}
{"op":"get","key":"g/a","kv":{"value":"1"},"call":21,"return":22,"revision":2}`},
		{"a write of a user who never might", "illegal", `
{"op":"put","key":"g/a","value":"1","user":true,"call":1,"return":2}`},
		{"a write after the permission was taken", "illegal", `
{"op":"permit","key":"g/","may":"rw","call":1,"return":2}
{"op":"permit","key":"g/","may":"","had":true,"call":3,"return":4}
{"op":"put","key":"g/a","value":"1","user":true,"call":5,"return":6}`},
		{"a read after the permission was taken", "illegal", `
{"op":"permit","key":"g/","may":"rw","call":1,"return":2}
{"op":"permit","key":"g/","may":"w","call":3,"return":4}
{"op":"get","key":"g/a","kv":null,"user":true,"call":5,"return":6}`},
		{"a transaction of a user who may only write", "illegal", `
{"op":"permit","key":"g/","may":"w","call":1,"return":2}
{"op":"cas","key":"g/a","expect":{"mod_revision":0},"value":"1","succeeded":true,"user":true,"call":3,"return":4}`},
		{"denied after the permission was given", "illegal", `
{"op":"permit","key":"g/","may":"w","call":1,"return":2}
{"op":"put","key":"g/a","value":"1","user":true,"denied":true,"call":3,"return":4}`},
		{"either beside the change of the permission", "ok", `
{"op":"permit","key":"g/","may":"w","call":1,"return":9}
{"op":"put","key":"g/a","value":"1","user":true,"denied":true,"call":2,"return":3}
{"op":"put","key":"g/a","value":"2","user":true,"call":4,"return":5}
{"op":"get","key":"g/a","kv":{"value":"2"},"call":10,"return":11}`},
		{"a permission beside its change goes back", "illegal", `
{"op":"permit","key":"g/","may":"w","call":1,"return":9}
{"op":"put","key":"g/a","value":"2","user":true,"call":2,"return":3}
{"op":"put","key":"g/a","value":"1","user":true,"denied":true,"call":4,"return":5}`},
		{"a denied write was done", "illegal", `
{"op":"put","key":"g/a","value":"1","user":true,"denied":true,"call":1,"return":2}
{"op":"get","key":"g/a","kv":{"value":"1"},"call":3,"return":4}`},
		{"a denied write was done once it might", "illegal", `
{"op":"put","key":"g/a","value":"1","user":true,"denied":true,"call":1,"return":2}
{"op":"permit","key":"g/","may":"w","call":3,"return":4}
{"op":"get","key":"g/a","kv":{"value":"1"},"call":5,"return":6}`},
		{"a write without answer of a user who never might", "illegal", `
{"op":"put","key":"g/a","value":"1","user":true,"call":1}
{"op":"get","key":"g/a","kv":{"value":"1"},"call":3,"return":4}`},
		{"a write without answer happens once it may", "ok", `
{"op":"put","key":"g/a","value":"1","user":true,"call":1}
{"op":"get","key":"g/a","kv":null,"call":3,"return":4}
{"op":"permit","key":"g/","may":"w","call":5,"return":6}
{"op":"get","key":"g/a","kv":{"value":"1"},"call":7,"return":8}`},
		{"a permit without answer happens later", "ok", `
{"op":"permit","key":"g/","may":"w","call":1}
{"op":"put","key":"g/a","value":"1","user":true,"denied":true,"call":2,"return":3}
{"op":"put","key":"g/a","value":"1","user":true,"call":4,"return":5}`},
		{"a permit without answer happens twice", "illegal", `
{"op":"permit","key":"g/","may":"w","call":1}
{"op":"put","key":"g/a","value":"1","user":true,"call":2,"return":3}
{"op":"permit","key":"g/","may":"","had":true,"call":4,"return":5}
{"op":"put","key":"g/a","value":"1","user":true,"call":6,"return":7}`},
		{"a permission is taken twice", "illegal", `
{"op":"permit","key":"g/","may":"w","call":1,"return":2}
{"op":"permit","key":"g/","may":"","had":true,"call":3,"return":4}
{"op":"permit","key":"g/","may":"","had":true,"call":5,"return":6}`},
		{"a permission is only of its group", "illegal", `
{"op":"permit","key":"g/","may":"w","call":1,"return":2}
{"op":"put","key":"h/a","value":"1","user":true,"call":3,"return":4}`},
		{"a permit of a revision gone by", "illegal", `
{"op":"put","key":"g/a","value":"1","call":1,"return":9,"revision":3}
{"op":"get","key":"g/a","kv":{"value":"1"},"call":2,"return":3}
{"op":"permit","key":"g/","may":"w","call":4,"return":9,"revision":2}`},
		{"a revoke of a lease that nothing hangs on", "ok", `
{"op":"put","key":"g/a","value":"1","lease":7,"call":1,"return":2}
{"op":"revoke","key":"g/","lease":8,"user":true,"call":3,"return":4}
{"op":"revoke","key":"g/","lease":7,"user":true,"denied":true,"call":5,"return":6}
{"op":"get","key":"g/a","kv":{"value":"1"},"call":7,"return":8}`},
		{"a revoke without permission", "illegal", `
{"op":"put","key":"g/a","value":"1","lease":7,"call":1,"return":2}
{"op":"revoke","key":"g/","lease":7,"user":true,"call":3,"return":4}`},
		{"a revoke of nothing denied", "illegal", `
{"op":"revoke","key":"g/","lease":7,"user":true,"denied":true,"call":3,"return":4}`},
		{"root denied", "bad input", `{"op":"get","key":"g/a","denied":true,"call":1,"return":2}`},
		{"denied without answer", "bad input", `{"op":"put","key":"g/a","user":true,"denied":true,"call":1}`},
		{"a permit by the user", "bad input", `{"op":"permit","key":"g/","user":true,"call":1,"return":2}`},
		{"a permit of something else", "bad input", `{"op":"permit","key":"g/","may":"x","call":1,"return":2}`},
		{"a put with a permission", "bad input", `{"op":"put","key":"g/a","may":"w","call":1,"return":2}`},
		{"a clear of one key", "bad input", `{"op":"clear","key":"g/a","deleted":0,"call":1,"return":2}`},
		{"a revoke of no lease", "bad input", `{"op":"revoke","key":"g/","call":1,"return":2}`},
		{"an unknown field", "bad input", `{"op":"get","key":"a","colour":1}`},
		{"an unknown operation", "bad input", `{"op":"sing","key":"a"}`},
		{"no key", "bad input", `{"op":"get"}`},
		{"no result", "bad input", `{"op":"cas","key":"a","expect":{"value":"x"},"call":1,"return":2}`},
		{"no condition", "bad input", `{"op":"cas","key":"a","call":1}`},
		{"time runs backwards", "bad input", `{"op":"get","key":"a","call":2,"return":1}`},
	}
	status := map[string]int{"ok": exitLinearizable, "illegal": exitIllegal, "bad input": exitBadInput}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			got := run(strings.NewReader(c.history), &out, time.Minute, "")
			if got != status[c.want] || !strings.HasPrefix(out.String(), c.want) {
				t.Errorf("status %d, want %s: %s", got, c.want, out.String())
			}
		})
	}
}

func TestIllegalHistoryNamesItsKeysAndIsDrawn(t *testing.T) {
	picture := filepath.Join(t.TempDir(), "picture.html")
	var out strings.Builder
	run(strings.NewReader(`
{"op":"get","key":"good","kv":null,"call":1,"return":2}
{"op":"get","key":"bad","kv":{"value":"1"},"call":1,"return":2}`), &out, time.Minute, picture)
	if want := "illegal: not linearizable, keys: \"bad\"\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if matches, _ := filepath.Glob(picture); len(matches) != 1 {
		t.Error("no picture was drawn")
	}
}

// Histories of a store that works, with answers lost at random, are accepted.
func TestRandomHistoriesOfACorrectStore(t *testing.T) {
	for seed := range int64(200) {
		history := simulate(rand.New(rand.NewSource(seed)), 300)
		var out strings.Builder
		if run(strings.NewReader(history), &out, time.Minute, "") != exitLinearizable {
			t.Fatalf("seed %d: %s\n%s", seed, out.String(), history)
		}
	}
}

// simulate runs operations one after the other, and stretches their intervals
// so that they overlap.
func simulate(random *rand.Rand, count int) string {
	var lines strings.Builder
	keys, revision := map[string]KeyValue{}, int64(1)
	for i := range count {
		at := int64(i) * 100
		call, end := at-random.Int63n(300), fmt.Sprint(at+random.Int63n(300))
		lost := random.Intn(20) == 0
		if lost {
			end = "null"
		}
		key := fmt.Sprint("k", random.Intn(3))
		now, exists := keys[key]
		seen := "null"
		if exists {
			seen = fmt.Sprintf(`{"value":%q,"mod_revision":%d,"version":%d}`, now.Value, now.ModRevision, now.Version)
		}
		write := !lost || random.Intn(2) == 0
		value := fmt.Sprint("v", i)
		next := KeyValue{value, revision + 1, now.Version + 1}
		body := ""
		switch random.Intn(4) {
		case 0:
			body = fmt.Sprintf(`"op":"get","kv":%s`, seen)
		case 1:
			body = fmt.Sprintf(`"op":"put","value":%q`, value)
			if write {
				keys[key], revision = next, revision+1
			}
		case 2:
			deleted := 0
			if exists && write {
				delete(keys, key)
				deleted, revision = 1, revision+1
			}
			body = fmt.Sprintf(`"op":"delete","deleted":%d`, deleted)
		case 3:
			expected := now.ModRevision + int64(random.Intn(2))
			holds := expected == now.ModRevision
			body = fmt.Sprintf(`"op":"cas","expect":{"mod_revision":%d},"value":%q,"succeeded":%t`, expected, value, holds)
			if !holds {
				body += `,"read":true,"kv":` + seen
			} else if write {
				keys[key], revision = next, revision+1
			}
		}
		header := revision
		if lost {
			header = 0
		}
		fmt.Fprintf(&lines, "{%s,\"client\":%d,\"key\":%q,\"call\":%d,\"return\":%s,\"revision\":%d}\n",
			body, i, key, call, end, header)
	}
	return lines.String()
}
