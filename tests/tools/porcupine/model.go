package main

import (
	"fmt"
	"maps"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// state is what is known of one key. Of a write without an answer the mod
// revision stays open until a read tells it.
type state struct {
	exists  bool
	value   string
	version int64
	lease   int64
	mod     int64 // 0: not known
	floor   int64 // no later change of the key has a revision up to this
}

// keys is what is known of each key of a group. It is not changed but replaced.
type keys map[string]state

// groupModel checks every group of keys for itself; linearizability is composable.
// Users and roles are known to all of them: each group has its own order of their
// changes, and what the groups would not agree on is not noticed.
func groupModel() porcupine.Model {
	nondeterministic := porcupine.NondeterministicModel{
		Partition: byGroup,
		Init:      func() []any { return []any{store{keys: keys{}}} },
		Step: func(before, input, _ any) []any {
			var after []any
			for _, next := range before.(store).step(input.(*Entry)) {
				after = append(after, next)
			}
			return after
		},
		Equal:             func(one, other any) bool { return one.(store).equals(other.(store)) },
		DescribeOperation: func(input, _ any) string { return describe(input.(*Entry)) },
		DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s.(store)) },
	}
	return nondeterministic.ToModel()
}

func step(before keys, entry *Entry) []keys {
	switch entry.Op {
	case "get":
		return before.with(entry.Key, before[entry.Key].read(entry.KV, entry.Revision))
	case "put":
		return before.with(entry.Key, before[entry.Key].put(entry))
	case "delete":
		return before.with(entry.Key, before[entry.Key].remove(entry))
	case "list":
		return before.list(entry)
	case "clear":
		return before.clear(entry)
	case "revoke":
		return before.end(entry, func(s state) bool { return s.lease == entry.Lease })
	default:
		return before.cas(entry)
	}
}

// with returns the group with each of the states that a key may have then.
func (k keys) with(key string, after []state) []keys {
	var found []keys
	for _, next := range after {
		changed := maps.Clone(k)
		changed[key] = next
		found = append(found, changed)
	}
	return found
}

func (k keys) list(entry *Entry) []keys {
	for key := range entry.KVs {
		if !k[key].exists {
			return nil
		}
	}
	after := maps.Clone(k)
	for key, now := range k {
		next := now.read(entry.KVs[key], entry.Revision)
		if next == nil {
			return nil
		}
		after[key] = next[0]
	}
	return []keys{after}
}

func (k keys) clear(entry *Entry) []keys {
	count := int64(0)
	for _, now := range k {
		if now.exists {
			count++
		}
	}
	if entry.known() && *entry.Deleted != count {
		return nil
	}
	return k.end(entry, func(state) bool { return true })
}

// end deletes what is there and wanted, all in one revision.
func (k keys) end(entry *Entry, wanted func(state) bool) []keys {
	after := maps.Clone(k)
	for key, now := range k {
		gone := now.exists && wanted(now)
		switch {
		case entry.Revision != 0 && (entry.Revision < now.floor || gone && entry.Revision == now.floor):
			return nil
		case gone:
			after[key] = state{floor: max(now.floor, entry.Revision)}
		}
	}
	return []keys{after}
}

func (k keys) cas(entry *Entry) []keys {
	held, failed := k[entry.Key].cas(entry)
	after := k.with(entry.Key, held)
	for _, key := range entry.Also {
		var more []keys
		for _, next := range after {
			more = append(more, next.with(key, next[key].put(entry))...)
		}
		after = more
	}
	return append(after, k.with(entry.Key, failed)...)
}

// read returns what is known after the key was seen to be as in kv, in an
// answer with the given header revision.
func (s state) read(kv *KeyValue, revision int64) []state {
	if revision != 0 && revision < s.floor {
		return nil
	}
	if kv == nil {
		if s.exists {
			return nil
		}
		return []state{s}
	}
	if !s.exists || kv.Value != s.value || kv.Version != 0 && kv.Version != s.version {
		return nil
	}
	return s.learn(kv.ModRevision)
}

// learn takes note of the mod revision of the key.
func (s state) learn(mod int64) []state {
	switch {
	case mod == 0 || mod == s.mod:
		return []state{s}
	case s.mod != 0 || mod <= s.floor:
		return nil
	}
	s.mod, s.floor = mod, mod
	return []state{s}
}

func (s state) put(entry *Entry) []state {
	revision := entry.Revision
	if revision != 0 && revision <= s.floor {
		return nil
	}
	after := state{
		exists: true, value: entry.Value, version: 1, lease: entry.Lease, mod: revision, floor: max(s.floor, revision)}
	if s.exists {
		after.version = s.version + 1
	}
	return []state{after}
}

func (s state) remove(entry *Entry) []state {
	if entry.known() && (*entry.Deleted == 1) != s.exists {
		return nil
	}
	if !s.exists {
		return s.read(nil, entry.Revision)
	}
	if entry.Revision != 0 && entry.Revision <= s.floor {
		return nil
	}
	return []state{{floor: max(s.floor, entry.Revision)}}
}

// cas returns what the key may be once the condition held, and once it failed.
func (s state) cas(entry *Entry) (done, refused []state) {
	held, failed := s.matching(entry.Expect)
	if !entry.known() || *entry.Succeeded {
		for _, start := range held {
			done = append(done, start.put(entry)...)
		}
	}
	if !entry.known() || !*entry.Succeeded {
		for _, start := range failed {
			if entry.Read && entry.known() {
				refused = append(refused, start.read(entry.KV, entry.Revision)...)
			} else if entry.Revision == 0 || entry.Revision >= start.floor {
				refused = append(refused, start)
			}
		}
	}
	return done, refused
}

// matching returns the state as it is if the condition holds, and if not.
func (s state) matching(expect *Expectation) (held, failed []state) {
	holds := false
	switch {
	case expect.Value != nil:
		// etcd: a value comparison never holds for a missing key.
		holds = s.exists && s.value == *expect.Value
	case expect.Version != nil:
		holds = s.version == *expect.Version
	case s.exists && s.mod == 0 && *expect.ModRevision > s.floor:
		return s.learn(*expect.ModRevision), []state{s}
	case s.exists:
		holds = s.mod != 0 && s.mod == *expect.ModRevision
	default:
		holds = *expect.ModRevision == 0
	}
	if holds {
		return []state{s}, nil
	}
	return nil, []state{s}
}

func byGroup(history []porcupine.Operation) [][]porcupine.Operation {
	var auth []porcupine.Operation
	groups := map[string][]porcupine.Operation{}
	for _, operation := range history {
		if entry := operation.Input.(*Entry); entry.ofAuth() {
			auth = append(auth, operation)
		} else {
			name := group(entry.Key)
			groups[name] = append(groups[name], operation)
		}
	}
	parts := [][]porcupine.Operation{auth}
	for _, part := range groups {
		parts = append(parts, append(part, auth...))
	}
	return parts
}

// illegalGroups names the keys, or groups of them, whose histories fail by themselves.
func illegalGroups(model porcupine.Model, history []*Entry, timeout time.Duration) string {
	var names []string
	for _, part := range byGroup(toOperations(history)) {
		if porcupine.CheckOperationsTimeout(model, part, timeout) == porcupine.Illegal {
			names = append(names, fmt.Sprintf("%q", group(part[0].Input.(*Entry).Key)))
		}
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

func describe(entry *Entry) string {
	outcome := "no answer"
	switch {
	case entry.Refused != "":
		outcome = entry.Refused
	case entry.known():
		outcome = fmt.Sprintf("revision %d", entry.Revision)
		if entry.Op == "get" || entry.Read {
			outcome += fmt.Sprintf(", saw %+v", entry.KV)
		}
		if entry.Op == "list" {
			outcome += fmt.Sprintf(", saw %d keys", len(entry.KVs))
		}
	}
	return fmt.Sprintf("line %d: %s(%s %s%s) %s", entry.line, entry.Op, entry.Key, entry.Value, entry.May, outcome)
}
