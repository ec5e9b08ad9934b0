"""Concurrent clients whose every operation is recorded, and the verdict of porcupine on it."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, delete_op, get_op, put_op, when

OPERATION_SECONDS = 20.0
CHECK_SECONDS = 240
STUCK_SECONDS = 0.3
"""A server that answers nobody for so long is paused."""
NOT_DONE = "etcdserver: no leader"
"""What byre says of a write that was not done and never will be, the database being away."""
PAUSE_SECONDS = 0.05
"""How long a client rests that was refused, so that refusals do not fill the history."""
UNSURE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}
"""Codes after which a write may have happened, or may yet."""

Entry = dict[str, object]
"""One line of the history; its fields are in tests/tools/README.md."""


@dataclass
class History:
    """What all clients did, and how many of their operations are under way."""

    entries: list[Entry] = field(default_factory=list)
    under_way: int = 0
    completed: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until_completed(self, more: int) -> None:
        """Wait until so many more operations were answered."""
        goal = self.completed + more
        async with self._changed:
            await self._changed.wait_for(lambda: self.completed >= goal)

    async def until_stuck(self, clients: int) -> None:
        """Wait until every client waits for an answer and none comes."""
        seen = -1
        while self.under_way < clients or seen != self.completed:
            seen = self.completed
            with suppress(TimeoutError):
                async with asyncio.timeout(STUCK_SECONDS):
                    await self.until_completed(1)

    async def _record(
        self, entry: Entry, answer: Mapping[str, object] | None, *, unsure: bool
    ) -> None:
        if answer is not None:
            entry |= answer
            entry["return"] = time.monotonic_ns()
        if answer is not None or (unsure and entry["op"] != "get"):
            self.entries.append(entry)
        async with self._changed:
            self.under_way -= 1
            self.completed += answer is not None
            self._changed.notify_all()

    async def perform(self, client: Client, entry: Entry) -> Entry:
        """Do what the entry says, and complete it by the answer, if one comes."""
        self.under_way += 1
        entry["call"] = time.monotonic_ns()
        answer, unsure = None, True
        try:
            answer = await _ask(client, entry)
        except grpc.aio.AioRpcError as error:
            if error.code() not in UNSURE:
                raise
            unsure = error.details() != NOT_DONE
        finally:
            await self._record(entry, answer, unsure=unsure)
        return entry

    def check(self, checker: Path, directory: Path) -> None:
        """Fail unless the history is linearizable; it is kept in `directory`."""
        kept = directory / "history.jsonl"
        kept.write_text("".join(f"{json.dumps(entry)}\n" for entry in self.entries))
        picture = directory / "history.html"
        with kept.open() as lines:
            done = subprocess.run(
                [checker, f"--timeout={CHECK_SECONDS}s", f"--picture={picture}"],
                stdin=lines,
                stdout=subprocess.PIPE,
                text=True,
                timeout=2 * CHECK_SECONDS,
                check=False,
            )
        assert done.returncode == 0, f"{done.stdout.strip()}; see {kept} and {picture}"


@dataclass
class Workload:
    """Clients that read and write a few keys until they are stopped.

    Each client has a server of its own, and goes to the next one when it is refused.
    """

    targets: str | Sequence[str]
    clients: int = 8
    keys: int = 6
    seed: int = 0
    history: History = field(default_factory=History)

    async def run(self, stop: asyncio.Event) -> None:
        """Run all clients, then read every key once more."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._client(number, stop))
        async with Client(self.target(0)) as client:
            for key in self._names():
                await self.history.perform(client, {"op": "get", "key": key, "client": 0})

    def target(self, number: int = 0) -> str:
        """Return where a client of this number begins."""
        targets = [self.targets] if isinstance(self.targets, str) else self.targets
        return targets[number % len(targets)]

    def _names(self) -> Sequence[str]:
        return [f"linear/{number}" for number in range(self.keys)]

    async def _client(self, number: int, stop: asyncio.Event) -> None:
        dice = random.Random(f"{self.seed}/{number}")
        seen: dict[str, int] = {}
        moves = turn = 0
        while not stop.is_set():
            async with Client(self.target(number + moves)) as client:
                done: Entry = {"return": 0}
                while not stop.is_set() and "return" in done:
                    turn += 1
                    key = dice.choice(self._names())
                    entry: Entry = {"client": number, "key": key, "value": f"{number}-{turn}"}
                    entry |= _draw(dice, seen.get(key, 0))
                    done = await self.history.perform(client, entry)
                    if isinstance(kv := done.get("kv"), dict):
                        seen[key] = kv["mod_revision"]
                    elif done["op"] == "put" and "revision" in done:
                        seen[key] = done["revision"]  # type: ignore[assignment] # an int, see above
                moves += 1
                if not stop.is_set():
                    await asyncio.sleep(PAUSE_SECONDS)


def _draw(dice: random.Random, mod_revision: int) -> Entry:
    roll = dice.random()
    if roll < 0.3:
        return {"op": "get"}
    if roll < 0.6:
        return {"op": "put"}
    if roll < 0.9:
        return {"op": "cas", "expect": {"mod_revision": mod_revision}, "read": True}
    return {"op": "delete"}


async def _ask(client: Client, entry: Entry) -> Mapping[str, object]:
    key, value = str(entry["key"]).encode(), str(entry.get("value", "")).encode()
    options: dict[str, Any] = {"timeout": OPERATION_SECONDS, "wait_for_ready": True}
    match entry["op"]:
        case "get":
            entry.pop("value", None)
            request = pb.RangeRequest(key=key)
            read = await client.call("KV/Range", request, pb.RangeResponse, **options)
            return {"revision": read.header.revision, "kv": _seen(read.kvs)}
        case "put":
            put = pb.PutRequest(key=key, value=value)
            written = await client.call("KV/Put", put, pb.PutResponse, **options)
            return {"revision": written.header.revision}
        case "delete":
            entry.pop("value", None)
            delete = delete_op(key).request_delete_range
            gone = await client.call("KV/DeleteRange", delete, pb.DeleteRangeResponse, **options)
            return {"revision": gone.header.revision, "deleted": gone.deleted}
        case _:
            expected: Any = entry["expect"]
            txn = pb.TxnRequest(
                compare=[when(key, mod_revision=expected["mod_revision"])],
                success=[put_op(key, value)],
                failure=[get_op(key)],
            )
            answer = await client.call("KV/Txn", txn, pb.TxnResponse, **options)
            result: Entry = {"revision": answer.header.revision, "succeeded": answer.succeeded}
            if not answer.succeeded:
                result["kv"] = _seen(answer.responses[0].response_range.kvs)
            return result


def _seen(kvs: Sequence[kv_pb2.KeyValue]) -> Entry | None:
    if not kvs:
        return None
    kv = kvs[0]
    return {"value": kv.value.decode(), "mod_revision": kv.mod_revision, "version": kv.version}
