"""Concurrent clients whose every operation is recorded, and the verdict of porcupine on it."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.auth_history import AUTH, REFUSALS, UNKNOWN_WHO, ask_auth
from tests.support.client import Client, get_op, prefix_end, put_op, txn_op, when
from tests.support.running import Server

OPERATION_SECONDS = 20.0
CHECK_SECONDS = 240
STUCK_SECONDS = 0.3
"""A server that answers nobody for so long is paused."""
NOT_DONE = "etcdserver: no leader"
"""What byre says of an operation that was not done and never will be, the database being away."""
LEASE_SECONDS = 100_000
GROUP = 2
"""Keys that some operations read, write or delete together."""
READS = {"get", "list", "log in", "show user"}
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
    _tokens: dict[str | bytes, int] = field(default_factory=dict)
    """The number that each token has in the entries."""
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
        if answer is not None or (unsure and entry["op"] not in READS):
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
            if why := REFUSALS.get((error.code(), error.details())):
                answer = {"refused": why}
            elif error.details() == NOT_DONE:
                unsure = False
            elif error.code() not in UNSURE:
                raise
        finally:
            for _, token in client.metadata:
                entry["token"] = self._tokens.setdefault(token, len(self._tokens) + 1)
            await self._record(entry, answer, unsure=unsure)
        return entry

    async def restart(self, server: Server) -> None:
        """Kill a server and start it again; an etcd has forgotten its simple tokens then."""
        entry: Entry = {"op": "forget", "call": time.monotonic_ns()}
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        if server.name == "etcd":
            self.entries.append(entry | {"return": time.monotonic_ns()})

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
class Worker:
    """What a client of a workload keeps over its connections."""

    number: int
    dice: random.Random
    turns: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    """The mod revision that it last saw of each key."""
    leases: dict[str, int] = field(default_factory=dict)
    """Its lease of each group."""


@dataclass
class Workload:
    """Clients that read and write a few keys, alone and in groups, until they are stopped.

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
        for prefix in self.groups:
            await self.insist(0, {"op": "list", "key": prefix})

    def target(self, number: int = 0) -> str:
        """Return where a client of this number begins."""
        targets = [self.targets] if isinstance(self.targets, str) else self.targets
        return targets[number % len(targets)]

    @property
    def groups(self) -> Sequence[str]:
        """What the keys of each group begin with."""
        return sorted({to_group(name) for name in self._names()})

    def connect(self, target: str, number: int) -> AbstractAsyncContextManager[Client]:
        """Connect for the client of this number."""
        return Client(target)

    def draw(self, worker: Worker, key: str) -> Entry:
        """Choose what a client does next."""
        return _draw(worker.dice, key, worker.seen.get(key, 0), worker.leases)

    def _names(self) -> Sequence[str]:
        return [f"linear/{n // GROUP}/{n % GROUP}" for n in range(self.keys)]

    async def _client(self, number: int, stop: asyncio.Event) -> None:
        worker = Worker(number, random.Random(f"{self.seed}/{number}"))
        moves = 0
        while not stop.is_set():
            with passing_over_faults():
                async with self.connect(self.target(number + moves), number) as client:
                    going = True
                    while going and not stop.is_set():
                        going = _is_served(await self._take_turn(client, worker))
            moves += 1
            if not stop.is_set():
                await asyncio.sleep(PAUSE_SECONDS)

    async def insist(self, number: int, entry: Entry) -> Entry:
        """Do this as the client of a number, on one server after the other until one answers."""
        for moves in itertools.count():
            with passing_over_faults():
                async with self.connect(self.target(moves), number) as client:
                    done = await self.history.perform(client, {"client": number, **entry})
                    if _is_served(done):
                        return done
            await asyncio.sleep(PAUSE_SECONDS)
        raise AssertionError

    async def _take_turn(self, client: Client, worker: Worker) -> Entry:
        worker.turns += 1
        dice, seen, number = worker.dice, worker.seen, worker.number
        key = dice.choice(self._names())
        entry: Entry = {"client": number, "key": key, "value": f"{number}-{worker.turns}"}
        entry |= self.draw(worker, key)
        if entry["op"] == "put" and dice.random() < 0.4:
            await self._attach(client, entry, worker.leases)
        done = await self.history.perform(client, entry)
        if isinstance(kv := done.get("kv"), dict):
            seen[key] = kv["mod_revision"]
        elif done["op"] == "put" and "revision" in done:
            seen[key] = done["revision"]  # type: ignore[assignment] # an int, see above
        return done

    async def _attach(self, client: Client, entry: Entry, leases: dict[str, int]) -> None:
        """Hang the key on the client's lease of its group, granted if need be and possible."""
        group = to_group(str(entry["key"]))
        if group not in leases:
            self.history.under_way += 1
            with suppress(grpc.aio.AioRpcError):
                leases[group] = (await client.grant(LEASE_SECONDS)).ID
            self.history.under_way -= 1
        if group in leases:
            entry["lease"] = leases[group]


@contextmanager
def passing_over_faults() -> Iterator[None]:
    """Pass over an error that any client must expect while servers and networks fail."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() not in UNSURE:
            raise


def _is_served(done: Entry) -> bool:
    return "return" in done and done.get("refused") not in UNKNOWN_WHO


def to_group(key: str) -> str:
    """Return the prefix of the keys that are checked together."""
    return key.rpartition("/")[0] + "/"


def _draw(dice: random.Random, key: str, mod_revision: int, leases: dict[str, int]) -> Entry:
    """Choose an operation. What ends a lease takes it from `leases`: it is not used again."""
    roll = dice.random()
    group = to_group(key)
    if roll < 0.2:
        return {"op": "get"}
    if roll < 0.3:
        return {"op": "list", "key": group}
    if roll < 0.55:
        return {"op": "put"}
    if roll < 0.83:
        expected = {"op": "cas", "expect": {"mod_revision": mod_revision}, "read": True}
        others = [name for name in (f"{group}{n}" for n in range(GROUP)) if name != key]
        return expected | ({"also": others} if dice.random() < 0.4 else {})
    if roll < 0.9:
        return {"op": "delete"}
    if roll < 0.95 and group in leases:
        return {"op": "revoke", "key": group, "lease": leases.pop(group)}
    return {"op": "clear", "key": group}


async def _ask(client: Client, entry: Entry) -> Mapping[str, object]:
    options: dict[str, Any] = {"timeout": OPERATION_SECONDS, "wait_for_ready": True}
    if entry["op"] in AUTH:
        return await ask_auth(client, entry, options)
    key, value = str(entry["key"]).encode(), str(entry.get("value", "")).encode()
    if entry["op"] not in {"put", "cas"}:
        entry.pop("value", None)
    end = prefix_end(key) if entry["op"] in {"list", "clear"} else b""
    match entry["op"]:
        case "get" | "list":
            request = pb.RangeRequest(key=key, range_end=end)
            read = await client.call("KV/Range", request, pb.RangeResponse, **options)
            revision = read.header.revision
            if entry["op"] == "get":
                return {"revision": revision, "kv": _seen(read.kvs)}
            return {"revision": revision, "kvs": {kv.key.decode(): _seen([kv]) for kv in read.kvs}}
        case "put":
            lease: Any = entry.get("lease", 0)
            put = pb.PutRequest(key=key, value=value, lease=lease)
            written = await client.call("KV/Put", put, pb.PutResponse, **options)
            return {"revision": written.header.revision}
        case "delete" | "clear":
            delete = pb.DeleteRangeRequest(key=key, range_end=end)
            gone = await client.call("KV/DeleteRange", delete, pb.DeleteRangeResponse, **options)
            return {"revision": gone.header.revision, "deleted": gone.deleted}
        case "revoke":
            ended: Any = entry["lease"]
            revoke = pb.LeaseRevokeRequest(ID=ended)
            over = await client.call(
                "Lease/LeaseRevoke", revoke, pb.LeaseRevokeResponse, **options
            )
            return {"revision": over.header.revision}
        case _:
            return await _compare_and_swap(client, entry, key, value, options)


async def _compare_and_swap(
    client: Client, entry: Entry, key: bytes, value: bytes, options: dict[str, Any]
) -> Entry:
    """Put a key that nobody changed meanwhile, and others of its group in a nested transaction."""
    expected: Any = entry["expect"]
    also: Any = entry.get("also", ())
    nested = [txn_op(success=[put_op(name.encode(), value) for name in also])] if also else []
    txn = pb.TxnRequest(
        compare=[when(key, mod_revision=expected["mod_revision"])],
        success=[put_op(key, value), *nested],
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
