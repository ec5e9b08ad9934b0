package main

import (
	"errors"
	"fmt"
	"maps"
	"strings"
)

// Why etcd refuses, as far as it is worked out here.
const (
	notEnabled = "authentication is not enabled"
	wrong      = "authentication failed, invalid user ID or password"
	badToken   = "invalid auth token"
	nobody     = "user name is empty"
	denied     = "permission denied"
	old        = "revision of auth store is old"
	noUser     = "user name not found"
	userExists = "user name already exists"
	noRole     = "role name not found"
	roleExists = "role name already exists"
	notHeld    = "role is not granted to the user"
	notGranted = "permission is not granted to the role"
)

// auth is what is known of a root, who is always there, of one user, and of one
// role that he may have. It is not changed but replaced.
type auth struct {
	enabled  bool
	user     bool
	password string
	holds    bool // the user has the role
	role     bool
	may      string         // what the role allows with the group: some of the letters r and w
	tokens   map[int64]bool // those that are good, and whether they are the user's
}

func (a auth) equals(other auth) bool {
	return a.enabled == other.enabled && a.user == other.user && a.password == other.password &&
		a.holds == other.holds && a.role == other.role && a.may == other.may && maps.Equal(a.tokens, other.tokens)
}

// store is what is known of a group and of who may do what with it.
type store struct {
	keys keys
	auth auth
}

func (s store) equals(other store) bool {
	return maps.Equal(s.keys, other.keys) && s.auth.equals(other.auth)
}

// step returns what may be known after an operation.
func (s store) step(entry *Entry) []store {
	if entry.raced() {
		return []store{s} // see checkRaces
	}
	refused := s.auth.refuses(entry, s.keys)
	switch {
	case entry.known() && entry.Refused != refused:
		return nil
	case refused != "":
		return []store{s}
	case !entry.ofAuth() && entry.Op != "permit":
		var after []store
		for _, next := range step(s.keys, entry) {
			after = append(after, store{next, s.auth})
		}
		return after
	case entry.Op == "show user" && entry.Holds != s.auth.holds, s.keys.passed(entry.Revision):
		return nil
	}
	return []store{{s.keys, s.auth.change(entry)}}
}

// refuses says why an operation is not done, if so. As in etcd, who calls comes
// first, then whether he may, then whether it is possible.
func (a auth) refuses(entry *Entry, keys keys) string {
	switch entry.Op {
	case "forget":
		return ""
	case "log in":
		switch {
		case !a.enabled:
			return notEnabled
		case entry.User && (!a.user || entry.Password != a.password):
			return wrong
		}
		return ""
	}
	if a.enabled {
		isUser, good := a.tokens[entry.Token]
		switch {
		case entry.Token == 0:
			return nobody
		case !good:
			return badToken
		case isUser && !a.allows(entry, keys):
			return denied
		}
	}
	return a.cannot(entry)
}

// allows says whether the user may do this: as etcd, a transaction needs what
// either outcome of it would need, and a lease may be revoked by everybody
// while nothing hangs on it.
func (a auth) allows(entry *Entry, keys keys) bool {
	reads := a.holds && strings.Contains(a.may, "r")
	writes := a.holds && strings.Contains(a.may, "w")
	switch entry.Op {
	case "get", "list":
		return reads
	case "put", "delete", "clear":
		return writes
	case "cas":
		return reads && writes
	case "revoke":
		return writes || !keys.hangOn(entry.Lease)
	}
	return entry.Op == "show user"
}

// cannot says what is in the way of a change.
func (a auth) cannot(entry *Entry) string {
	switch entry.Op {
	case "add user":
		return unless(!a.user, userExists)
	case "delete user", "change password", "show user":
		return unless(a.user, noUser)
	case "add role":
		return unless(!a.role, roleExists)
	case "delete role":
		return unless(a.role, noRole)
	case "grant role":
		if !a.user {
			return noUser
		}
		return unless(a.role, noRole)
	case "revoke role":
		if !a.user {
			return noUser
		}
		return unless(a.holds, notHeld)
	case "permit":
		if !a.role {
			return noRole
		}
		return unless(entry.May != "" || a.may != "", notGranted)
	}
	return ""
}

func unless(possible bool, why string) string {
	if possible {
		return ""
	}
	return why
}

// change returns what is known after a change that is possible. A token ends
// with its user and his password, and all do when auth is switched off.
func (a auth) change(entry *Entry) auth {
	switch entry.Op {
	case "log in":
		a.tokens = maps.Clone(a.tokens)
		if a.tokens == nil {
			a.tokens = map[int64]bool{}
		}
		a.tokens[entry.Token] = entry.User
	case "forget":
		a.tokens = nil
	case "enable":
		a.enabled = true
	case "disable":
		a.enabled, a.tokens = false, nil
	case "add user":
		a.user, a.password = true, entry.Password
	case "delete user":
		a.user, a.password, a.holds, a.tokens = false, "", false, a.rootTokens()
	case "change password":
		a.password, a.tokens = entry.Password, a.rootTokens()
	case "add role":
		a.role = true
	case "delete role":
		a.role, a.holds, a.may = false, false, ""
	case "grant role":
		a.holds = true
	case "revoke role":
		a.holds = false
	case "permit":
		a.may = entry.May
	}
	return a
}

func (a auth) rootTokens() map[int64]bool {
	kept := maps.Clone(a.tokens)
	maps.DeleteFunc(kept, func(_ int64, isUser bool) bool { return isUser })
	return kept
}

func (k keys) hangOn(lease int64) bool {
	for _, now := range k {
		if now.exists && now.lease == lease {
			return true
		}
	}
	return false
}

// passed says whether a key is known to have a later revision.
func (k keys) passed(revision int64) bool {
	for _, now := range k {
		if revision != 0 && revision < now.floor {
			return true
		}
	}
	return false
}

// ofAuth says whether an operation is of all groups, and of none of their keys.
func (e *Entry) ofAuth() bool {
	switch e.Op {
	case "log in", "show user", "forget", "enable", "disable", "add user", "delete user", "change password",
		"add role", "delete role", "grant role", "revoke role":
		return true
	}
	return false
}

// raced says whether an operation was refused because auth changed under way:
// who called was found out before, and whether he may was asked after that.
func (e *Entry) raced() bool {
	return e.Refused == old || e.Refused == nobody && e.Token != 0
}

// changesAuth says whether an operation may be such a change. In etcd, AuthEnable
// leaves the auth revision as it is: only those are refused who had shown nothing.
func (e *Entry) changesAuth(refusal string) bool {
	switch e.Op {
	case "log in", "show user", "forget":
		return false
	case "enable":
		return refusal == nobody && e.Refused == ""
	}
	return refusal == old && e.Refused == "" && (e.ofAuth() || e.Op == "permit")
}

// checkRaces checks that such a change was under way whenever it was the reason.
func checkRaces(history []*Entry) error {
	for _, entry := range history {
		if !entry.raced() {
			continue
		}
		met := false
		for _, other := range history {
			met = met || other.changesAuth(entry.Refused) &&
				other.Call <= *entry.Return && (!other.known() || *other.Return >= entry.Call)
		}
		if !met {
			return fmt.Errorf("line %d was refused (%s) while nothing changed", entry.line, entry.Refused)
		}
	}
	return nil
}

func (e *Entry) validateAuth() error {
	switch {
	case e.Op != "permit" && e.May != "":
		return fmt.Errorf("only a permit has may, not a %s", e.Op)
	case e.Refused != "" && !e.known():
		return errors.New("only an answer refuses")
	case e.ofAuth() && e.Key != "":
		return fmt.Errorf("a %s has no key", e.Op)
	case e.Op == "log in" && e.answered() && e.Token == 0:
		return errors.New("a log in needs a token")
	case e.Op == "permit" && e.May != "" && e.May != "r" && e.May != "w" && e.May != "rw":
		return fmt.Errorf("a permit of %q, not of r, w or rw", e.May)
	}
	return nil
}
