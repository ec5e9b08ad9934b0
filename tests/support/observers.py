"""Watchers that record a real server's events over restarts, for the checks of `history`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.auth import BAD_TOKEN, DENIED, NOBODY, OLD
from tests.support.client import Client, WatchStream
from tests.support.history import Log, Watch, check_complete, check_watch, from_responses
from tests.support.linearizability import PAUSE_SECONDS, Entry, Workload, passing_over_faults

Wanted = tuple[bytes, bytes, dict[str, Any]]
"""The key and range end of a watch, and the other fields of the request."""
IDLE_SECONDS = 0.3
"""After so long without a response a finishing observer asks for progress."""
NOT_NOW = (DENIED.text, OLD.text, BAD_TOKEN.text, NOBODY.text)
"""How the reasons end for which a watch is not created where auth changes."""


@dataclass
class Segment:
    """One watch from its creation to its end, as it came."""

    watch: Watch
    messages: list[pb.WatchResponse] = field(default_factory=list)

    @property
    def reached(self) -> int:
        """The last revision of which every event is here."""
        whole = [message for message in self._whole() if message.events]
        return whole[-1].events[-1].kv.mod_revision if whole else self.watch.first - 1

    def _whole(self) -> Sequence[pb.WatchResponse]:
        """Leave out the fragments that a broken stream ends with."""
        last = len(self.messages)
        while last and self.messages[last - 1].fragment:
            last -= 1
        return self.messages[:last]

    def finish(self, compacted: int) -> Watch:
        """Return the watch with its responses."""
        self.watch.responses = from_responses(self._whole())
        self.watch.compacted = compacted
        return self.watch


@dataclass
class Observer:
    """Watches one range, and goes on after the last revision it saw when the stream breaks.

    Where there are several servers it goes on at the next one.
    """

    targets: str | Sequence[str]
    key: bytes
    end: bytes = b""
    fields: dict[str, Any] = field(default_factory=dict)
    connect: Callable[[str], AbstractAsyncContextManager[Client]] = Client
    segments: list[Segment] = field(default_factory=list)
    _final: asyncio.Future[int] = field(default_factory=asyncio.Future)

    def finish(self, revision: int) -> None:
        """Let `run` return once every event up to `revision` has come."""
        self._final.set_result(revision)

    async def run(self) -> None:
        """Watch from the first revision on."""
        start = 1
        targets = [self.targets] if isinstance(self.targets, str) else self.targets
        for target in cycle(targets):
            with passing_over_faults(), suppress(EOFError):
                async with (
                    self.connect(target) as client,
                    client.watch(wait_for_ready=True) as stream,
                ):
                    if await self._follow(stream, start):
                        return
            if self.segments:
                last = self.segments[-1]
                start = max(last.watch.canceled_at or last.reached + 1, start)

    async def _follow(self, stream: WatchStream, start: int) -> bool:
        created = await stream.create(self.key, self.end, start_revision=start, **self.fields)
        if created.canceled:
            assert created.cancel_reason.endswith(NOT_NOW), created.cancel_reason
            await asyncio.sleep(PAUSE_SECONDS)
            return False
        kinds = self.fields.get("filters", ())
        segment = Segment(
            Watch(
                self.key,
                self.end,
                start_revision=start,
                prev_kv=self.fields.get("prev_kv", False),
                no_put=pb.WatchCreateRequest.NOPUT in kinds,
                no_delete=pb.WatchCreateRequest.NODELETE in kinds,
                created_revision=created.header.revision,
            )
        )
        self.segments.append(segment)
        while True:
            try:
                response = await stream.next(IDLE_SECONDS)
            except TimeoutError:
                if self._final.done():
                    await stream.request_progress()
                continue
            if response.canceled:
                assert response.compact_revision, response.cancel_reason
                segment.watch.canceled_at = response.compact_revision
                return False
            segment.messages.append(response)
            is_progress = not response.events
            if (
                self._final.done()
                and is_progress
                and response.header.revision >= self._final.result()
            ):
                return True

    def check(self, log: Log, compacted: int) -> None:
        """Fail unless all of etcd's watch properties hold, and nothing is missing at the end."""
        for segment in self.segments:
            check_watch(segment.finish(compacted), log)
        check_complete(self.segments[-1].watch, log, self._final.result())


def observe_as(workload: Workload, number: int, wanted: Sequence[Wanted]) -> list[Observer]:
    """Return an observer of each range, on one server after the other, as a client of these."""
    targets = [workload.target(n) for n in range(len(wanted))]
    connect = partial(workload.connect, number=number)
    return [
        Observer([*targets[n:], *targets[:n]], key, end, fields, connect)
        for n, (key, end, fields) in enumerate(wanted)
    ]


def to_log(observer: Observer) -> Log:
    """Return what an observer of everything saw, as the truth for the others."""
    log = Log()
    for segment in observer.segments:
        assert not segment.watch.canceled_at, "the log's own watch missed something"
        for event in segment.finish(0).events:
            log.append(event)
    return log


def check_acknowledged(entries: Sequence[Entry], log: Log) -> None:
    """Fail unless each change that was acknowledged is in the log, as it was asked for."""
    events = {(event.revision, event.kv.key): event for event in log.events}
    for entry in entries:
        changed = entry["op"] == "put" or entry.get("deleted") or entry.get("succeeded")
        if "return" not in entry or "refused" in entry or not changed:
            continue
        revision: Any = entry["revision"]
        also: Any = entry.get("also", ())
        if entry["op"] == "clear":
            gone = [event for event in log.between(revision, revision) if event.deleted]
            assert len(gone) == entry["deleted"], f"acknowledged and not seen so: {entry}"
            continue
        for key in (str(entry["key"]), *also):
            event = events.get((revision, key.encode()))
            assert event is not None, f"acknowledged and never seen: {entry}"
            assert event.deleted == (entry["op"] == "delete")
            assert event.deleted or event.kv.value.decode() == entry["value"]
