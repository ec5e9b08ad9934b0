"""etcdctl prints the same on the shim as on etcd, ids, sizes and times aside."""

from __future__ import annotations

import pytest

FORMATS = ("simple", "json", "fields", "protobuf")


def test_put_and_its_flags(pair, key):
    pair.agree(f"""
        put {key} one
        put {key} two --prev-kv
        put {key} --ignore-value --prev-kv
        put {key} three --ignore-lease
        put {key}-missing --ignore-value
        put {key}-missing x --ignore-lease
        put {key} x --lease=1234
        put {key} x --ignore-value
        put ''
        get {key} -w fields
    """)


@pytest.mark.parametrize("form", FORMATS[:3])
def test_get_and_its_flags(pair, key, form):
    pair.agree(f"""
        put {key}b 1
        put {key}a 2
        put {key}c 0
        put {key}a 3
        put {key}c%_ x
    """)
    flags = (
        "",
        "--limit=2",
        "--keys-only",
        "--count-only",
        "--print-value-only",
        "--consistency=s",
        "--sort-by=CREATE",
        "--sort-by=MODIFY --order=DESCEND",
        "--sort-by=VALUE --order=ASCEND --limit=1",
        "--sort-by=VERSION --order=DESCEND",
        "--order=DESCEND",
        "--rev=1000000",
        "--min-mod-rev=3 --max-mod-rev=8",
        "--min-create-rev=3",
        "--max-create-rev=5",
        "--stream",
        "--stream --limit=2",
    )
    for flag in flags:
        pair.agree(f"get {key} --prefix {flag} -w {form}")
    pair.agree(f"""
        get {key}a -w {form}
        get {key}missing -w {form}
        get {key}a {key}c -w {form}
        get {key}c --from-key --limit=2 -w {form}
        get '' --prefix --count-only -w {form}
        get {key}a --hex -w simple
    """)


def test_get_at_a_revision(pair, key):
    pair.agree(f"put {key} old")
    revision = pair.revision()
    pair.agree(f"""
        put {key} new
        get {key} --rev={revision}
        get {key} --rev={revision - 1}
        del {key}
        get {key} --rev={revision + 1} -w json
        get {key}
    """)


@pytest.mark.parametrize("form", FORMATS[:3])
def test_del_and_its_flags(pair, key, form):
    pair.agree(f"""
        put {key}a 1
        put {key}b 2
        put {key}c 3
        put {key}d 4
        del {key}a -w {form}
        del {key}a -w {form}
        del {key}b {key}c --prev-kv -w {form}
        del {key} --prefix --prev-kv -w {form}
        put ~{key} x
        put ~~{key} x
        del ~ --from-key -w {form}
    """)


@pytest.mark.parametrize("form", FORMATS[:3])
@pytest.mark.parametrize(
    "guard",
    [
        'mod("KEY") = "0"',
        'ver("KEY") > "1"',
        'val("KEY") = "x"',
        'c("KEY") < "9"',
    ],
)
def test_txn(pair, key, form, guard):
    text = f"{guard.replace('KEY', key)}\n\nput {key} x\nget {key}\n\nget {key}\ndel {key}\n\n"
    for _ in range(3):
        pair.agree(f"txn -w {form}", text)


def test_txn_interactive(pair, key):
    pair.agree("txn -i", f'ver("{key}") = "0"\n\nput {key} x\n\nget {key}\n\n')
    pair.agree("txn --interactive -w json", f'ver("{key}") = "0"\n\nput {key} x\n\nget {key}\n\n')


def test_a_bad_txn(pair, key):
    pair.agree("txn", f"\nput {key} 1\nput {key} 2\n\n\n")
    pair.agree("txn", f"mod('{key}') = 0\n\n\n\n")


@pytest.mark.parametrize(
    ("flags", "last"),
    [
        ("", "the-end"),
        ("--prev-kv", "the-end"),
        ("-w fields", "the-end"),
        ("--prev-kv -w json", "dGhlLWVuZA=="),
    ],
)
def test_watch_history(pair, key, flags, last):
    pair.agree(f"put {key} first")
    start = pair.revision() - 1
    pair.agree(f"""
        put {key} second
        put {key}x third
        del {key}
        put {key}y the-end
    """)
    command = f"{key} --prefix --rev={start} {flags}"
    ours, etcds = (shell.watch(command, last) for shell in pair)
    assert ours == etcds


def test_watch_interactive(pair, key):
    printed = []
    pair.agree(f"put {key}0 before")
    for shell in pair:
        with shell.started("watch -i") as watching:
            watching.say(f"watch {key} --prefix --rev={shell.revision()}")
            printed.append(watching.until("before"))
            watching.say("progress")
            printed.append(watching.until("progress notify"))
            watching.say(f"watch {key}2 --prev-kv")
            watching.say("nonsense")
    ours, etcds = printed[:2], printed[2:]
    assert ours == etcds


def test_watch_runs_a_command_for_each_event(pair, key):
    pair.agree(f"put {key} one")
    start = pair.revision()
    pair.agree(f"""
        put {key} two
        del {key}
    """)
    show = "sh -c 'env | grep ETCD_WATCH_ | sort'"
    ours, etcds = (
        shell.watch(f"{key} --rev={start} -- {show}", 'ETCD_WATCH_VALUE=""') for shell in pair
    )
    assert ours == etcds
    assert 'ETCD_WATCH_EVENT_TYPE="DELETE"' in ours


def test_watch_of_a_range_that_ends(pair, key):
    pair.agree(f"put {key}a 1")
    start = pair.revision()
    pair.agree(f"""
        put {key}b 2
        put {key}c 3
        put {key}a the-end
    """)
    ours, etcds = (shell.watch(f"{key}a {key}c --rev={start}", "the-end") for shell in pair)
    assert ours == etcds


def test_lease(pair, key):
    pair.agree(f"""
        lease grant 1000
        lease grant 2000
        lease grant 9000000001
        put {key}a 1 --lease=LEASE0
        put {key}b 2 --lease=LEASE0
        put {key}b 3 --lease=LEASE1
        get {key} --prefix -w fields
        lease timetolive LEASE0 --keys
        lease timetolive LEASE1
        lease timetolive 1234
        lease list
        lease keep-alive LEASE0 --once
        lease keep-alive 1234 --once
        lease revoke LEASE0
        lease revoke LEASE0
        get {key} --prefix
        lease revoke LEASE1
        lease list
        get {key} --prefix
    """)


def test_compaction(pair, key):
    pair.agree(f"""
        put {key} 1
        put {key} 2
        put {key} 3
    """)
    revision = pair.revision()
    pair.agree(f"""
        compaction {revision - 1}
        compaction {revision - 1}
        compaction {revision + 100}
        get {key} --rev={revision - 2}
        get {key} --rev={revision - 1}
        compaction --physical {revision}
        get {key} --rev={revision}
        watch {key} --rev={revision - 1}
    """)
