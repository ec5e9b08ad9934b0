package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/anishathalye/porcupine"
)

// KeyValue is what a read saw of a key. A zero revision or version was not
// recorded and is not checked.
type KeyValue struct {
	Value       string `json:"value"`
	ModRevision int64  `json:"mod_revision"`
	Version     int64  `json:"version"`
}

// Expectation is the condition of a cas; exactly one field is given. A
// mod_revision or version of 0 means that the key does not exist.
type Expectation struct {
	ModRevision *int64  `json:"mod_revision"`
	Version     *int64  `json:"version"`
	Value       *string `json:"value"`
}

// Entry is one line of a history.
type Entry struct {
	Client int    `json:"client"`
	Op     string `json:"op"`
	Key    string `json:"key"`
	Call   int64  `json:"call"`
	// Nil for an operation whose outcome is not known.
	Return *int64 `json:"return"`
	// The store's revision in the answer's header, 0 when not recorded.
	Revision int64 `json:"revision"`

	Value  string       `json:"value"`  // put, cas: what is written
	Expect *Expectation `json:"expect"` // cas: the condition
	Also   []string     `json:"also"`   // cas: other keys of the group that get the value too
	Lease  int64        `json:"lease"`  // put: what the key hangs on; revoke: what ends
	May    string       `json:"may"`    // permit: what the role may do with the group from now on

	KV        *KeyValue            `json:"kv"`        // get, failed cas: what was there, nil for nothing
	KVs       map[string]*KeyValue `json:"kvs"`       // list: what was there
	Deleted   *int64               `json:"deleted"`   // delete, clear: how many keys
	Succeeded *bool                `json:"succeeded"` // cas
	// A failed cas read the key in its else branch: KV counts.
	Read bool `json:"read"`

	Token    int64  `json:"token"`    // log in: what was given; others: what was shown, 0 for nothing
	User     bool   `json:"user"`     // log in: as the user, not as root
	Password string `json:"password"` // log in, add user, change password: the user's
	Holds    bool   `json:"holds"`    // show user: whether he has the role
	Refused  string `json:"refused"`  // why it was not done, in etcd's words

	line int
}

func (e *Entry) known() bool { return e.Return != nil }

func (e *Entry) answered() bool { return e.known() && e.Refused == "" }

// changes says whether an operation is known to have made a revision.
func (e *Entry) changes() bool {
	switch {
	case !e.answered():
		return false
	case e.Op == "put":
		return true
	case e.Op == "delete", e.Op == "clear":
		return *e.Deleted > 0
	case e.Op == "cas":
		return *e.Succeeded
	}
	return false
}

func (e *Entry) validate() error {
	if e.Key == "" && !e.ofAuth() {
		return errors.New("no key")
	}
	if e.known() && *e.Return < e.Call {
		return errors.New("returns before its call")
	}
	if err := e.validateAuth(); err != nil {
		return err
	}
	switch e.Op {
	case "list", "clear", "revoke", "permit":
		return e.validateGroup()
	case "get", "put":
	case "delete":
		if e.answered() && (e.Deleted == nil || *e.Deleted < 0 || *e.Deleted > 1) {
			return errors.New("a delete needs deleted, 0 or 1")
		}
	case "cas":
		if e.answered() && e.Succeeded == nil {
			return errors.New("a cas needs succeeded")
		}
		return e.Expect.validate()
	default:
		if !e.ofAuth() {
			return fmt.Errorf("unknown op %q", e.Op)
		}
	}
	return nil
}

func (e *Entry) validateGroup() error {
	switch {
	case group(e.Key) != e.Key:
		return fmt.Errorf("a %s needs a key that ends in /", e.Op)
	case e.Op == "clear" && e.answered() && (e.Deleted == nil || *e.Deleted < 0):
		return errors.New("a clear needs deleted")
	case e.Op == "revoke" && e.Lease == 0:
		return errors.New("a revoke needs a lease")
	}
	return nil
}

func (x *Expectation) validate() error {
	given := 0
	if x != nil {
		for _, here := range []bool{x.ModRevision != nil, x.Version != nil, x.Value != nil} {
			if here {
				given++
			}
		}
	}
	if given != 1 {
		return errors.New("a cas expects exactly one of mod_revision, version and value")
	}
	return nil
}

// group returns what is checked together with a key: all keys up to its last slash.
func group(key string) string {
	if slash := strings.LastIndex(key, "/"); slash >= 0 {
		return key[:slash+1]
	}
	return key
}

func readHistory(in io.Reader) ([]*Entry, error) {
	var history []*Entry
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for number := 1; lines.Scan(); number++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		entry := &Entry{line: number}
		decoder := json.NewDecoder(strings.NewReader(lines.Text()))
		decoder.DisallowUnknownFields()
		err := decoder.Decode(entry)
		if err == nil {
			err = entry.validate()
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		history = append(history, entry)
	}
	return history, lines.Err()
}

// toOperations leaves out what changes nothing and never returned: it constrains nothing.
func toOperations(history []*Entry) []porcupine.Operation {
	var operations []porcupine.Operation
	for _, entry := range history {
		switch entry.Op {
		case "get", "list", "log in", "show user":
			if !entry.known() {
				continue
			}
		}
		// One that may never have happened may as well happen last.
		end := int64(math.MaxInt64)
		if entry.known() {
			end = *entry.Return
		}
		operations = append(operations, porcupine.Operation{
			ClientId: entry.Client,
			Input:    entry,
			Call:     entry.Call,
			Return:   end,
		})
	}
	return operations
}
