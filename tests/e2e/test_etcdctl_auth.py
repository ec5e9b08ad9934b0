"""etcdctl's commands for users, roles and authentication: the same on the shim as on etcd."""

from __future__ import annotations

import pytest

FORMS = ("simple", "json", "fields")


@pytest.mark.parametrize("form", FORMS)
def test_users(new_pair, form):
    new_pair.agree(f"""
        user add alice:secret -w {form}
        user add alice:again -w {form}
        user add bob --new-user-password=secret -w {form}
        user add carol --no-password -w {form}
        user add '' -w {form}
        user list -w {form}
        user get alice -w {form}
        user get nobody -w {form}
        role add reader -w {form}
        user grant-role alice reader -w {form}
        user grant-role alice reader -w {form}
        user grant-role alice missing -w {form}
        user grant-role nobody reader -w {form}
        user get alice --detail -w {form}
        user revoke-role alice reader -w {form}
        user revoke-role alice reader -w {form}
        user delete carol -w {form}
        user delete carol -w {form}
        user list -w {form}
    """)
    new_pair.agree(f"user passwd alice --interactive=false -w {form}", "another\n")
    new_pair.agree(f"user passwd nobody --interactive=false -w {form}", "another\n")
    new_pair.agree(f"user add dave --interactive=false -w {form}", "secret\n")


@pytest.mark.parametrize("form", FORMS)
def test_roles(new_pair, form):
    new_pair.agree(f"""
        role add worker -w {form}
        role add worker -w {form}
        role add '' -w {form}
        role grant-permission worker read a -w {form}
        role grant-permission worker write a -w {form}
        role grant-permission worker readwrite b c -w {form}
        role grant-permission worker read dir/ --prefix -w {form}
        role grant-permission worker read z --from-key -w {form}
        role grant-permission worker nonsense x -w {form}
        role grant-permission missing read x -w {form}
        role get worker -w {form}
        role get missing -w {form}
        role get root -w {form}
        role revoke-permission worker a -w {form}
        role revoke-permission worker a -w {form}
        role revoke-permission worker dir/ --prefix -w {form}
        role revoke-permission worker z --from-key -w {form}
        role get worker -w {form}
        role list -w {form}
        role delete worker -w {form}
        role delete worker -w {form}
        role list -w {form}
    """)


ROOT = "--user=root:toor"
ALICE = "--user=alice:secret"
BOB = "--user=bob --password=secret"


def test_authentication(new_pair, tmp_path):
    new_pair.agree(f"""
        auth status
        auth disable
        auth enable
        put open 1
        user add root:toor
        user add alice:secret
        user add bob:secret
        role add reader
        role add writer
        role grant-permission reader read dir/ --prefix=true
        role grant-permission writer readwrite dir/own
        user grant-role alice reader
        user grant-role bob writer
        auth enable
        auth enable
        auth status
        auth status {ROOT}
        auth status {ROOT} -w json
        get open
        get open --user=root:wrong
        get open --user=nobody:x
        get open {ROOT}
        put dir/own 1 {ALICE}
        put dir/own 2 {BOB}
        get dir/ --prefix {ALICE}
        get dir/ --prefix {BOB}
        get dir/own {BOB}
        get open {ALICE}
        del dir/own {ALICE}
        del dir/own --prev-kv {BOB}
        put dir/own 3 --prev-kv {BOB}
        watch open {ALICE}
        user list {ALICE}
        user get alice {ALICE}
        user get bob {ALICE}
        role get reader {ALICE}
        role get writer {ALICE}
        role list {ALICE}
        member list {ALICE}
        endpoint status {ALICE}
        endpoint health {ALICE}
        endpoint health {ROOT}
        alarm list {ALICE}
        defrag {ALICE}
        compaction 2 {ALICE}
        compaction 2 {ROOT}
        snapshot save {tmp_path}/refused {ALICE}
        lease grant 1000 {ALICE}
        lease list {ALICE}
        lease revoke LEASE0 {ALICE}
        user grant-role alice writer {ROOT}
        put dir/own 4 {ALICE}
        user delete root {ROOT}
        role delete root {ROOT}
        user revoke-role root root {ROOT}
        role delete writer {ROOT}
        put dir/own 5 {ALICE}
        user get alice {ROOT}
        auth disable {ALICE}
        auth disable {ROOT}
        auth status
        get dir/own
    """)
    for text in ("\nput dir/own x\n\n\n\n", 'val("open") = "1"\n\nget dir/own\n\n\n'):
        new_pair.agree("txn", text)


def test_a_user_deletes_a_lease_only_of_keys_that_are_theirs(new_pair):
    new_pair.agree(f"""
        user add root:toor
        user add alice:secret
        role add own
        role grant-permission own readwrite mine
        user grant-role alice own
        user grant-role root root
        role add root
        user grant-role root root
        auth enable
        lease grant 1000 {ALICE}
        put mine 1 --lease=LEASE0 {ALICE}
        lease timetolive LEASE0 --keys {ALICE}
        put theirs 1 --lease=LEASE0 {ROOT}
        lease timetolive LEASE0 --keys {ALICE}
        put mine 2 --lease=LEASE0 {ALICE}
        lease revoke LEASE0 {ALICE}
        lease keep-alive LEASE0 --once {ALICE}
        lease revoke LEASE0 {ROOT}
        get mine {ALICE}
        auth disable {ROOT}
    """)
