"""etcdctl's commands for members, maintenance and snapshots: the same on the shim as on etcd."""

from __future__ import annotations

import re
import subprocess

import pytest

FORMS = ("simple", "json", "fields")


@pytest.mark.parametrize("form", FORMS)
def test_endpoint_and_members(pair, key, form):
    pair.agree(f"""
        put {key} x
        endpoint health -w {form}
        endpoint status -w {form}
        endpoint hashkv -w {form}
        endpoint hashkv --rev=1 -w {form}
        endpoint hashkv --rev=100000 -w {form}
        member list -w {form}
        endpoint health --cluster -w {form}
        endpoint status --cluster -w {form}
    """)


def test_defrag_and_alarms(pair, key):
    pair.agree(f"""
        put {key} x
        defrag
        defrag --cluster
        get {key}
        alarm list
        alarm disarm
    """)


def test_members_that_do_not_exist(pair):
    pair.agree("""
        member remove 1234
        member promote 1234
        member update 1234 --peer-urls=http://127.0.0.1:1
        member add another
        member remove MEMBER
    """)


def test_moving_the_leader(pair):
    pair.agree("""
        move-leader
        move-leader 1234
        move-leader nonsense
        move-leader MEMBER
    """)


@pytest.mark.parametrize("form", FORMS)
def test_downgrade(pair, form):
    pair.agree(f"""
        downgrade validate 3.6.0 -w {form}
        downgrade validate 3.5.0 -w {form}
        downgrade validate 3.8.0 -w {form}
        downgrade validate 3.7.3 -w {form}
        downgrade validate nonsense -w {form}
        downgrade cancel -w {form}
    """)


def test_a_downgrade_that_is_called_off(new_pair):
    new_pair.agree("""
        downgrade enable 3.6.0
        downgrade enable 3.6.0
        downgrade cancel
        downgrade cancel
    """)


def test_snapshot(pair, key, binaries, tmp_path):
    pair.agree(f"""
        put {key} 1
        put {key} 2
        snapshot save {tmp_path}/no/such/directory
        snapshot save
    """)
    printed = []
    for name, shell in zip(("ours", "etcds"), pair, strict=True):
        ran = shell.run(f"snapshot save {tmp_path}/{name}")
        printed.append(ran.output.replace(f"/{name}\n", "/FILE\n"))
        status = subprocess.run(
            [binaries.etcdutl, "snapshot", "status", tmp_path / name],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        # hash, revision, total keys, size
        printed.append(re.sub(r"^[0-9a-f]+, (\d+), (\d+), .*", r"\1, \2", status))
    assert printed[:2] == printed[2:]
