"""What holds for every datastore, proved on real processes."""

from __future__ import annotations

import functools

import pytest

from datastore.errors import NotReady
from datastore.etcdpb import rpc_pb2
from datastore.probe import identify, probe
from tests.contract.datastore.conftest import Stage, answered, create, key_value

pytestmark = [pytest.mark.servers]


async def test_check_says_why_before_anything_runs(stage: Stage) -> None:
    with pytest.raises(NotReady) as caught:
        await stage.datastore.check()
    assert "refused" in caught.value.reason or "no such file" in caught.value.reason
    assert caught.value.advice


async def test_it_starts_answers_and_keeps_its_data_and_identity(stage: Stage) -> None:
    await stage.start()
    await answered(stage.datastore.check)
    channel, stub = key_value(stage.datastore.endpoint)
    with channel:
        revision = create(stub, b"/registry/a", b"1")
    first = await answered(lambda: identify(stage.datastore.endpoint))
    assert first.revision >= revision
    stage.stop()
    with pytest.raises(NotReady):
        await stage.datastore.check()
    await stage.start()
    again = await answered(lambda: identify(stage.datastore.endpoint))
    assert again.cluster_id == first.cluster_id
    assert again.revision >= revision
    channel, stub = key_value(stage.datastore.endpoint)
    with channel:
        found = stub.Range(rpc_pb2.RangeRequest(key=b"/registry/a"), timeout=60)
    assert [(kv.value, kv.mod_revision) for kv in found.kvs] == [(b"1", revision)]


async def test_liveness_probes_pass_while_it_runs(stage: Stage) -> None:
    await stage.start()
    for spec in stage.datastore.processes():
        assert spec.liveness is not None
        await answered(functools.partial(probe, spec.liveness))


async def test_preparing_twice_changes_nothing(stage: Stage) -> None:
    stage.datastore.prepare()
    before = {
        path: path.read_bytes() for path in stage.paths.data_dir.rglob("*") if path.is_file()
    }
    stage.datastore.prepare()
    after = {path: path.read_bytes() for path in stage.paths.data_dir.rglob("*") if path.is_file()}
    assert after == before


async def test_private_places_are_private(stage: Stage) -> None:
    stage.datastore.prepare()
    for root in (stage.paths.data_dir, stage.paths.run_dir):
        for path in root.rglob("*"):
            mode = path.stat().st_mode & 0o777
            if path.is_dir() or path.suffix == ".key":
                assert mode & 0o077 == 0, f"{path} {mode:o}"


async def test_the_identity_is_told_unless_it_is_kine(stage: Stage) -> None:
    await stage.start()
    identity = await answered(lambda: identify(stage.datastore.endpoint))
    assert (identity.cluster_id == 0) == (stage.datastore.kind == "kine")
