"""The table of SUPPORT.md: made of results, and about the RPCs that are served."""

from __future__ import annotations

import json
from pathlib import Path

from datastore.shim.options import ServeOptions
from datastore.shim.server import Shim
from tests.support.support_table import NONE, SERVERS, TABLE, cell, read, rows, rpcs

REFLECTION = "/grpc.reflection."


def test_a_cell_tells_of_failures_first() -> None:
    assert cell({}) == NONE
    assert cell({"passed": 12}) == "12"
    assert cell({"passed": 12, "differs": 1}) == "12, 1 by design not"
    assert cell({"passed": 12, "failed": 2, "differs": 1}) == "**2 of 15 fail**"


def test_a_row_has_a_cell_for_each_server() -> None:
    results = {"etcd": {"/etcdserverpb.KV/Put": {"passed": 3}}, "sqlite": {}}
    (row,) = (row for row in rows(results) if "`KV/Put`" in row)
    assert row == "| `KV/Put` | 3 | none | none | none | none |"


def test_what_several_processes_have_noted_is_added_up(tmp_path: Path) -> None:
    put = "/etcdserverpb.KV/Put"
    for name, outcomes in (("gw0", {"passed": 3}), ("gw1", {"passed": 2, "failed": 1})):
        (tmp_path / name).write_text(json.dumps({"etcd": {put: outcomes}}))
    assert read(sorted(tmp_path.iterdir())) == {"etcd": {put: {"passed": 5, "failed": 1}}}


async def test_the_table_has_every_rpc_and_no_gap_where_one_is_served(tmp_path: Path) -> None:
    lines = TABLE.read_text("utf-8").partition("| RPC |")[2].splitlines()[2:]
    table = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines}
    expected = [next(iter(row.split("|")[1:])).strip() for row in list(rows({}))[2:]]
    assert list(table) == expected
    options = ServeOptions("memory://", (f"unix://{tmp_path}/grpc.sock",))
    async with Shim(options) as shim:
        served = {path for path in shim.desk.kinds if not path.startswith(REFLECTION)}
    assert served <= set(rpcs())
    for path, name in zip(rpcs(), expected, strict=True):
        cells = [text.strip() for text in table[name]]
        assert len(cells) == len(SERVERS)
        assert not any("fail" in text for text in cells)
        if path in served:
            assert NONE not in cells, f"{path} is served: run `make support-table`"
