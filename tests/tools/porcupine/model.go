package main

import (
	"fmt"
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
	mod     int64 // 0: not known
	floor   int64 // no later change of the key has a revision up to this
}

// keyModel checks every key for itself; linearizability is composable.
func keyModel() porcupine.Model {
	nondeterministic := porcupine.NondeterministicModel{
		Partition: byKey,
		Init:      func() []any { return []any{state{}} },
		Step: func(before, input, _ any) []any {
			var after []any
			for _, next := range step(before.(state), input.(*Entry)) {
				after = append(after, next)
			}
			return after
		},
		DescribeOperation: func(input, _ any) string { return describe(input.(*Entry)) },
		DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s.(state)) },
	}
	return nondeterministic.ToModel()
}

func step(before state, entry *Entry) []state {
	switch entry.Op {
	case "get":
		return before.read(entry.KV, entry.Revision)
	case "put":
		return before.put(entry)
	case "delete":
		return before.remove(entry)
	default:
		return before.cas(entry)
	}
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
	after := state{exists: true, value: entry.Value, version: 1, mod: revision, floor: max(s.floor, revision)}
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

func (s state) cas(entry *Entry) []state {
	held, failed := s.matching(entry.Expect)
	var after []state
	if !entry.known() || *entry.Succeeded {
		for _, start := range held {
			after = append(after, start.put(entry)...)
		}
	}
	if !entry.known() || !*entry.Succeeded {
		for _, start := range failed {
			if entry.Read && entry.known() {
				after = append(after, start.read(entry.KV, entry.Revision)...)
			} else if entry.Revision == 0 || entry.Revision >= start.floor {
				after = append(after, start)
			}
		}
	}
	return after
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

func byKey(history []porcupine.Operation) [][]porcupine.Operation {
	keys := map[string][]porcupine.Operation{}
	for _, operation := range history {
		key := operation.Input.(*Entry).Key
		keys[key] = append(keys[key], operation)
	}
	var parts [][]porcupine.Operation
	for _, part := range keys {
		parts = append(parts, part)
	}
	return parts
}

// illegalKeys names the keys whose histories fail by themselves.
func illegalKeys(model porcupine.Model, history []*Entry, timeout time.Duration) string {
	var names []string
	for _, part := range byKey(toOperations(history)) {
		if porcupine.CheckOperationsTimeout(model, part, timeout) == porcupine.Illegal {
			names = append(names, fmt.Sprintf("%q", part[0].Input.(*Entry).Key))
		}
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

func describe(entry *Entry) string {
	outcome := "no answer"
	if entry.known() {
		outcome = fmt.Sprintf("revision %d", entry.Revision)
		if entry.Op == "get" || entry.Read {
			outcome += fmt.Sprintf(", saw %+v", entry.KV)
		}
	}
	return fmt.Sprintf("line %d: %s(%s) %s", entry.line, entry.Op, entry.Value, outcome)
}
