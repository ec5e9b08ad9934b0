package main

import (
	"errors"
	"fmt"
	"maps"
	"strings"
)

// guarded is what is known of a group: its keys, and what the user may do with
// them: some of the letters r and w.
type guarded struct {
	keys keys
	may  string
}

func (g guarded) equals(other guarded) bool {
	return g.may == other.may && maps.Equal(g.keys, other.keys)
}

// step returns what may be known after an operation of the user, of root, or
// of a store that asks nobody.
func (g guarded) step(entry *Entry) []guarded {
	if entry.Op == "permit" {
		return g.permit(entry)
	}
	allowed := !entry.User || g.allows(entry)
	switch {
	case allowed && entry.Denied, !allowed && entry.known() && !entry.Denied:
		return nil
	case !allowed:
		return []guarded{g}
	}
	var after []guarded
	for _, next := range step(g.keys, entry) {
		after = append(after, guarded{next, g.may})
	}
	return after
}

func (g guarded) permit(entry *Entry) []guarded {
	if entry.Had != nil && *entry.Had != (g.may != "") {
		return nil
	}
	for _, now := range g.keys {
		if entry.Revision != 0 && entry.Revision < now.floor {
			return nil
		}
	}
	return []guarded{{g.keys, entry.May}}
}

// allows says whether the user may do this: as etcd, a transaction needs what
// either outcome of it would need, and a lease may be revoked by everybody
// while nothing hangs on it.
func (g guarded) allows(entry *Entry) bool {
	reads, writes := strings.Contains(g.may, "r"), strings.Contains(g.may, "w")
	switch entry.Op {
	case "get", "list":
		return reads
	case "cas":
		return reads && writes
	case "revoke":
		return writes || !g.keys.hangOn(entry.Lease)
	}
	return writes
}

func (k keys) hangOn(lease int64) bool {
	for _, now := range k {
		if now.exists && now.lease == lease {
			return true
		}
	}
	return false
}

func (e *Entry) validatePermit() error {
	switch {
	case e.Op != "permit" && (e.May != "" || e.Had != nil):
		return fmt.Errorf("only a permit has may and had, not a %s", e.Op)
	case e.Denied && (!e.User || !e.known()):
		return errors.New("only an answer to the user is denied")
	case e.Op != "permit":
		return nil
	case e.User:
		return errors.New("a permit is root's")
	case e.May != "" && e.May != "r" && e.May != "w" && e.May != "rw":
		return fmt.Errorf("a permit of %q, not of r, w or rw", e.May)
	}
	return nil
}
