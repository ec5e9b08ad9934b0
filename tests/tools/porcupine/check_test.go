package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// users begins a history with a role that is granted to the user and may do
// nothing yet, and with the tokens 1 of root and 2 of the user.
const users = `
{"op":"add user","password":"p","call":-12,"return":-11}
{"op":"add role","call":-10,"return":-9}
{"op":"grant role","call":-8,"return":-7}
{"op":"enable","call":-6,"return":-5}
{"op":"log in","token":1,"call":-4,"return":-3}
{"op":"log in","user":true,"password":"p","token":2,"call":-2,"return":-1}`

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
		{"a permitted user", "ok", users + `
{"op":"permit","key":"g/","may":"w","token":1,"call":1,"return":2,"revision":1}
{"op":"put","key":"g/a","value":"1","token":2,"call":3,"return":4,"revision":2}
{"op":"get","key":"g/a","token":2,"refused":"permission denied","call":5,"return":6}
{"op":"permit","key":"g/","may":"r","token":1,"call":7,"return":8,"revision":2}
{"op":"list","key":"g/","token":2,"kvs":{"g/a":{"value":"1","mod_revision":2,"version":1}},"call":9,"return":10,"revision":2}
{"op":"put","key":"g/a","value":"2","token":2,"refused":"permission denied","call":11,"return":12}
{"op":"cas","key":"g/a","expect":{"mod_revision":2},"value":"3","token":2,"refused":"permission denied","call":13,"return":14}
{"op":"permit","key":"g/","may":"","token":1,"call":15,"return":16,"revision":2}
{"op":"permit","key":"g/","may":"","refused":"permission is not granted to the role","token":1,"call":17,"return":18}
{"op":"clear","key":"g/","token":2,"refused":"permission denied","call":19,"return":20}
{"op":"get","key":"g/a","kv":{"value":"1"},"token":1,"call":21,"return":22,"revision":2}`},
		{"a write of a user who never might", "illegal", users + `
{"op":"put","key":"g/a","value":"1","token":2,"call":1,"return":2}`},
		{"a write after the permission was taken", "illegal", users + `
{"op":"permit","key":"g/","may":"rw","token":1,"call":1,"return":2}
{"op":"permit","key":"g/","may":"","token":1,"call":3,"return":4}
{"op":"put","key":"g/a","value":"1","token":2,"call":5,"return":6}`},
		{"a read after the permission was taken", "illegal", users + `
{"op":"permit","key":"g/","may":"rw","token":1,"call":1,"return":2}
{"op":"permit","key":"g/","may":"w","token":1,"call":3,"return":4}
{"op":"get","key":"g/a","kv":null,"token":2,"call":5,"return":6}`},
		{"a transaction of a user who may only write", "illegal", users + `
{"op":"permit","key":"g/","may":"w","token":1,"call":1,"return":2}
{"op":"cas","key":"g/a","expect":{"mod_revision":0},"value":"1","succeeded":true,"token":2,"call":3,"return":4}`},
		{"denied after the permission was given", "illegal", users + `
{"op":"permit","key":"g/","may":"w","token":1,"call":1,"return":2}
{"op":"put","key":"g/a","value":"1","token":2,"refused":"permission denied","call":3,"return":4}`},
		{"either beside the change of the permission", "ok", users + `
{"op":"permit","key":"g/","may":"w","token":1,"call":1,"return":9}
{"op":"put","key":"g/a","value":"1","token":2,"refused":"permission denied","call":2,"return":3}
{"op":"put","key":"g/a","value":"2","token":2,"call":4,"return":5}
{"op":"get","key":"g/a","kv":{"value":"2"},"token":1,"call":10,"return":11}`},
		{"a permission beside its change goes back", "illegal", users + `
{"op":"permit","key":"g/","may":"w","token":1,"call":1,"return":9}
{"op":"put","key":"g/a","value":"2","token":2,"call":2,"return":3}
{"op":"put","key":"g/a","value":"1","token":2,"refused":"permission denied","call":4,"return":5}`},
		{"a denied write was done", "illegal", users + `
{"op":"put","key":"g/a","value":"1","token":2,"refused":"permission denied","call":1,"return":2}
{"op":"get","key":"g/a","kv":{"value":"1"},"token":1,"call":3,"return":4}`},
		{"a denied write was done once it might", "illegal", users + `
{"op":"put","key":"g/a","value":"1","token":2,"refused":"permission denied","call":1,"return":2}
{"op":"permit","key":"g/","may":"w","token":1,"call":3,"return":4}
{"op":"get","key":"g/a","kv":{"value":"1"},"token":1,"call":5,"return":6}`},
		{"a write without answer of a user who never might", "illegal", users + `
{"op":"put","key":"g/a","value":"1","token":2,"call":1}
{"op":"get","key":"g/a","kv":{"value":"1"},"token":1,"call":3,"return":4}`},
		{"a write without answer happens once it may", "ok", users + `
{"op":"put","key":"g/a","value":"1","token":2,"call":1}
{"op":"get","key":"g/a","kv":null,"token":1,"call":3,"return":4}
{"op":"permit","key":"g/","may":"w","token":1,"call":5,"return":6}
{"op":"get","key":"g/a","kv":{"value":"1"},"token":1,"call":7,"return":8}`},
		{"a permit without answer happens later", "ok", users + `
{"op":"permit","key":"g/","may":"w","token":1,"call":1}
{"op":"put","key":"g/a","value":"1","token":2,"refused":"permission denied","call":2,"return":3}
{"op":"put","key":"g/a","value":"1","token":2,"call":4,"return":5}`},
		{"a permit without answer happens twice", "illegal", users + `
{"op":"permit","key":"g/","may":"w","token":1,"call":1}
{"op":"put","key":"g/a","value":"1","token":2,"call":2,"return":3}
{"op":"permit","key":"g/","may":"","token":1,"call":4,"return":5}
{"op":"put","key":"g/a","value":"1","token":2,"call":6,"return":7}`},
		{"a permission is taken twice", "illegal", users + `
{"op":"permit","key":"g/","may":"w","token":1,"call":1,"return":2}
{"op":"permit","key":"g/","may":"","token":1,"call":3,"return":4}
{"op":"permit","key":"g/","may":"","token":1,"call":5,"return":6}`},
		{"a permission is only of its group", "illegal", users + `
{"op":"permit","key":"g/","may":"w","token":1,"call":1,"return":2}
{"op":"put","key":"h/a","value":"1","token":2,"call":3,"return":4}`},
		{"a permit of a revision gone by", "illegal", users + `
{"op":"put","key":"g/a","value":"1","token":1,"call":1,"return":9,"revision":3}
{"op":"get","key":"g/a","kv":{"value":"1"},"token":1,"call":2,"return":3}
{"op":"permit","key":"g/","may":"w","token":1,"call":4,"return":9,"revision":2}`},
		{"a revoke of a lease that nothing hangs on", "ok", users + `
{"op":"put","key":"g/a","value":"1","lease":7,"token":1,"call":1,"return":2}
{"op":"revoke","key":"g/","lease":8,"token":2,"call":3,"return":4}
{"op":"revoke","key":"g/","lease":7,"token":2,"refused":"permission denied","call":5,"return":6}
{"op":"get","key":"g/a","kv":{"value":"1"},"token":1,"call":7,"return":8}`},
		{"a revoke without permission", "illegal", users + `
{"op":"put","key":"g/a","value":"1","lease":7,"token":1,"call":1,"return":2}
{"op":"revoke","key":"g/","lease":7,"token":2,"call":3,"return":4}`},
		{"a revoke of nothing denied", "illegal", users + `
{"op":"revoke","key":"g/","lease":7,"token":2,"refused":"permission denied","call":3,"return":4}`},
		{"the other user's permissions are nobody's", "illegal", users + `
{"op":"permit","key":"g/","may":"rw","token":1,"call":1,"return":2}
{"op":"put","key":"g/a","value":"1","call":3,"return":4}`},
		{"whoever shows nothing is refused", "ok", users + `
{"op":"get","key":"g/a","refused":"user name is empty","call":1,"return":2}
{"op":"disable","refused":"user name is empty","call":3,"return":4}
{"op":"revoke","key":"g/","lease":7,"refused":"user name is empty","call":5,"return":6}`},
		{"nobody is refused while auth is off", "illegal", users + `
{"op":"disable","token":1,"call":1,"return":2}
{"op":"get","key":"g/a","refused":"user name is empty","call":3,"return":4}`},
		{"auth is off and on again", "ok", users + `
{"op":"disable","token":1,"call":1,"return":2}
{"op":"put","key":"g/a","value":"1","call":3,"return":4,"revision":2}
{"op":"get","key":"g/a","token":2,"kv":{"value":"1"},"call":5,"return":6}
{"op":"log in","user":true,"password":"p","refused":"authentication is not enabled","call":7,"return":8}
{"op":"enable","call":9,"return":10}
{"op":"get","key":"g/a","token":2,"refused":"invalid auth token","call":11,"return":12}
{"op":"put","key":"h/a","token":1,"value":"1","refused":"invalid auth token","call":13,"return":14}
{"op":"log in","user":true,"password":"p","token":3,"call":15,"return":16}
{"op":"get","key":"g/a","token":3,"refused":"permission denied","call":17,"return":18}`},
		{"a write while auth is on again", "illegal", users + `
{"op":"disable","token":1,"call":1,"return":2}
{"op":"enable","call":3,"return":4}
{"op":"put","key":"g/a","value":"1","call":5,"return":6}`},
		{"a login while auth is off", "illegal", users + `
{"op":"disable","token":1,"call":1,"return":2}
{"op":"log in","password":"p","token":3,"call":3,"return":4}`},
		{"a token from before auth was off", "illegal", users + `
{"op":"disable","token":1,"call":1,"return":2}
{"op":"enable","call":3,"return":4}
{"op":"delete user","token":1,"call":5,"return":6}`},
		{"a lost switch takes effect later", "ok", users + `
{"op":"disable","token":1,"call":1}
{"op":"get","key":"g/a","refused":"user name is empty","call":2,"return":3}
{"op":"get","key":"g/a","kv":null,"call":4,"return":5}`},
		{"a password is changed", "ok", users + `
{"op":"change password","password":"q","token":1,"call":1,"return":2}
{"op":"get","key":"g/a","token":2,"refused":"invalid auth token","call":3,"return":4}
{"op":"get","key":"g/a","token":1,"kv":null,"call":5,"return":6}
{"op":"log in","user":true,"password":"p","refused":"authentication failed, invalid user ID or password","call":7,"return":8}
{"op":"log in","user":true,"password":"q","token":3,"call":9,"return":10}`},
		{"a token outlives the password", "illegal", users + `
{"op":"permit","key":"g/","may":"rw","token":1,"call":1,"return":2}
{"op":"change password","password":"q","token":1,"call":3,"return":4}
{"op":"get","key":"g/a","token":2,"kv":null,"call":5,"return":6}`},
		{"an old password", "illegal", users + `
{"op":"change password","password":"q","token":1,"call":1,"return":2}
{"op":"log in","user":true,"password":"p","token":3,"call":3,"return":4}`},
		{"a good token is refused", "illegal", users + `
{"op":"get","key":"g/a","token":2,"refused":"invalid auth token","call":3,"return":4}`},
		{"a good token that the server forgot", "ok", users + `
{"op":"forget","call":1,"return":9}
{"op":"get","key":"g/a","token":1,"kv":null,"call":2,"return":3}
{"op":"get","key":"g/a","token":2,"refused":"invalid auth token","call":4,"return":5}`},
		{"a user is deleted and added", "ok", users + `
{"op":"permit","key":"g/","may":"rw","token":1,"call":1,"return":2}
{"op":"delete user","token":1,"call":3,"return":4}
{"op":"get","key":"g/a","token":2,"refused":"invalid auth token","call":5,"return":6}
{"op":"log in","user":true,"password":"p","refused":"authentication failed, invalid user ID or password","call":7,"return":8}
{"op":"grant role","token":1,"refused":"user name not found","call":9,"return":10}
{"op":"show user","token":1,"refused":"user name not found","call":9,"return":10}
{"op":"add user","password":"q","token":1,"call":11,"return":12}
{"op":"show user","token":1,"holds":false,"call":13,"return":14}
{"op":"log in","user":true,"password":"q","token":3,"call":15,"return":16}
{"op":"get","key":"g/a","token":3,"refused":"permission denied","call":17,"return":18}
{"op":"grant role","token":1,"call":19,"return":20}
{"op":"get","key":"g/a","token":3,"kv":null,"call":21,"return":22}`},
		{"a user is added twice", "illegal", users + `
{"op":"add user","password":"q","token":1,"call":1,"return":2}`},
		{"a user's token outlives him", "illegal", users + `
{"op":"delete user","token":1,"call":1,"return":2}
{"op":"add user","password":"p","token":1,"call":3,"return":4}
{"op":"get","key":"g/a","token":2,"refused":"permission denied","call":5,"return":6}`},
		{"a role is revoked", "ok", users + `
{"op":"permit","key":"g/","may":"rw","token":1,"call":1,"return":2}
{"op":"revoke role","token":1,"call":3,"return":9}
{"op":"get","key":"g/a","token":2,"kv":null,"call":4,"return":5}
{"op":"get","key":"g/a","token":2,"refused":"permission denied","call":6,"return":7}
{"op":"revoke role","token":1,"refused":"role is not granted to the user","call":10,"return":11}
{"op":"grant role","token":1,"call":12,"return":13}
{"op":"get","key":"g/a","token":2,"kv":null,"call":14,"return":15}`},
		{"a role counts after it was revoked", "illegal", users + `
{"op":"permit","key":"g/","may":"rw","token":1,"call":1,"return":2}
{"op":"revoke role","token":1,"call":3,"return":4}
{"op":"get","key":"g/a","token":2,"kv":null,"call":5,"return":6}`},
		{"a role that was granted does not count", "illegal", users + `
{"op":"permit","key":"g/","may":"rw","token":1,"call":1,"return":2}
{"op":"get","key":"g/a","token":2,"refused":"permission denied","call":5,"return":6}`},
		{"a role is deleted, and all that was permitted", "ok", users + `
{"op":"permit","key":"g/","may":"rw","token":1,"call":1,"return":2}
{"op":"delete role","token":1,"call":3,"return":4}
{"op":"delete role","token":1,"refused":"role name not found","call":5,"return":6}
{"op":"permit","key":"g/","may":"w","token":1,"refused":"role name not found","call":5,"return":6}
{"op":"show user","token":1,"holds":false,"call":7,"return":8}
{"op":"add role","token":1,"call":9,"return":10}
{"op":"add role","token":1,"refused":"role name already exists","call":11,"return":12}
{"op":"grant role","token":1,"call":13,"return":14}
{"op":"put","key":"g/a","value":"1","token":2,"refused":"permission denied","call":15,"return":16}
{"op":"permit","key":"g/","may":"","token":1,"refused":"permission is not granted to the role","call":17,"return":18}`},
		{"permissions of a deleted role come back with it", "illegal", users + `
{"op":"permit","key":"g/","may":"rw","token":1,"call":1,"return":2}
{"op":"delete role","token":1,"call":3,"return":4}
{"op":"add role","token":1,"call":5,"return":6}
{"op":"grant role","token":1,"call":7,"return":8}
{"op":"get","key":"g/a","token":2,"kv":null,"call":9,"return":10}`},
		{"a user is shown with what he lost", "illegal", users + `
{"op":"revoke role","token":1,"call":1,"return":2}
{"op":"show user","token":1,"holds":true,"call":3,"return":4}`},
		{"the user changes what only root may", "illegal", users + `
{"op":"add role","token":2,"refused":"role name already exists","call":1,"return":2}`},
		{"auth changes under way", "ok", users + `
{"op":"revoke role","token":1,"call":1,"return":3}
{"op":"put","key":"g/a","value":"1","token":2,"refused":"revision of auth store is old","call":2,"return":4}
{"op":"disable","token":1,"call":5,"return":6}
{"op":"enable","call":7,"return":9}
{"op":"put","key":"g/a","value":"1","token":2,"refused":"user name is empty","call":6,"return":8}`},
		{"auth is said to change, and does not", "illegal", users + `
{"op":"revoke role","token":1,"call":1,"return":2}
{"op":"put","key":"g/a","value":"1","token":2,"refused":"revision of auth store is old","call":3,"return":4}`},
		{"auth is said to be switched on, and is not", "illegal", users + `
{"op":"revoke role","token":1,"call":1,"return":9}
{"op":"put","key":"g/a","value":"1","token":2,"refused":"user name is empty","call":3,"return":4}`},
		{"refused without answer", "bad input", `{"op":"put","key":"g/a","refused":"permission denied","call":1}`},
		{"a login without a token", "bad input", `{"op":"log in","call":1,"return":2}`},
		{"a user of a group", "bad input", `{"op":"add user","key":"g/","call":1,"return":2}`},
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

// Of the answers to operations on users, roles and keys, one after the other, none
// can be exchanged for another without notice.
func TestEveryWrongRefusalIsNoticed(t *testing.T) {
	for seed := range int64(10) {
		entries := simulateAuth(rand.New(rand.NewSource(seed)), 60)
		if result := verdict(t, entries); result != exitLinearizable {
			t.Fatalf("seed %d: status %d of a correct store", seed, result)
		}
		for at, entry := range entries {
			right := entry.Refused
			for _, wrong := range []string{"", denied, badToken, nobody} {
				if entry.Refused = wrong; wrong == right || entry.raced() {
					continue
				}
				if result := verdict(t, entries); result != exitIllegal {
					t.Fatalf("seed %d, operation %d: status %d of %+v instead of %q", seed, at, result, entry, right)
				}
			}
			entry.Refused = right
		}
	}
}

func verdict(t *testing.T, entries []*Entry) int {
	var lines, out strings.Builder
	for _, entry := range entries {
		if err := json.NewEncoder(&lines).Encode(entry); err != nil {
			t.Fatal(err)
		}
	}
	return run(strings.NewReader(lines.String()), &out, time.Minute, "")
}

// simulateAuth lets a store answer operations of root, of the user, of nobody,
// and with tokens that have ended.
func simulateAuth(random *rand.Rand, count int) []*Entry {
	ops := []string{"log in", "log in", "put", "put", "delete", "permit", "permit", "enable", "disable", "add user",
		"delete user", "change password", "add role", "delete role", "grant role", "grant role", "revoke role", "show user"}
	entries, now, none := []*Entry{}, store{keys: keys{}}, int64(0)
	for i := range int64(count) {
		end := 10*i + 5
		entry := &Entry{Op: ops[random.Intn(len(ops))], Call: 10 * i, Return: &end, Token: int64(random.Intn(int(i + 1)))}
		entry.Password = []string{"p", "q"}[random.Intn(2)]
		switch entry.Op {
		case "log in":
			entry.Token, entry.User = i+1, random.Intn(2) == 0
		case "put", "delete":
			entry.Key, entry.Deleted = "g/a", &none
		case "permit":
			entry.Key, entry.May = "g/", []string{"", "r", "w", "rw"}[random.Intn(4)]
		}
		entry.Holds = entry.Op == "show user" && now.auth.holds
		if s := now.keys["g/a"]; entry.Op == "delete" && s.exists {
			one := int64(1)
			entry.Deleted = &one
		}
		entry.Refused = now.auth.refuses(entry, now.keys)
		now = now.step(entry)[0]
		entries = append(entries, entry)
	}
	return entries
}
