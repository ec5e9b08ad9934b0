"""The hub: every committed change goes in once, and out to every watcher that asked for it.

A watcher is *synced* when it has been given everything up to the hub's revision: `publish` then
feeds it from memory, in the same step of the event loop that applied the commit. Any other watcher
is *unsynced* (it misses events from its `next` revision on) and is fed from history by `run`, or
*waiting* (it asked for a revision that nobody has written yet). `watcher.TRANSITIONS` is the whole
life of a watcher.

Three rules carry the guarantees that etcd gives:

- Everything that hands events over is one step of the loop, from reading `revision` to the last
  stream. So a watcher is registered at a position that no event can slip past (T30), and a
  progress notification at R follows every event up to R on its stream (T22).
- A watcher leaves the synced at the first revision that it could not be given, with `next` set to
  that revision, and comes back in the step that gave it the hub's revision. So nothing is lost or
  doubled, and events of a revision stay together.
- Nobody waits for anybody. A stream with more than `stream_bytes` unsent is *blocked*: its
  watchers become unsynced one by one as they miss something, and history skips them until
  `drained`. A publish never fetches: if an event needs a value that has left the cache (a previous
  one, mostly), the watchers that want it become unsynced at that revision instead.

An example: watcher A of prefix `a/` since revision 10; B of the same, on a slow stream; C of `a/`
from revision 8; D from 12. The hub is at 10, and 11 and 12 are written.

    step                     A            B                  C                   D
    register at 10           synced       synced             unsynced, next 8    waiting
    publish 11               11           11, now blocked    unsynced, next 8    waiting
    run reads 8..11          .            .                  8 9 10 11, synced   waiting
    publish 12               12           unsynced, next 12  12                  synced, 12
    progress asked by all    at 12        kept               at 12               at 12
    drained(B), run reads    .            12, synced         .                   .
    .                        .            progress at 12     .                   .

Cost: watchers of equal range and options form a `Group`, and a group's events are encoded and
joined once, so the price of one more watcher is a dictionary entry and a call of its stream.
Unsynced watchers share one `HistoryReader`: a page is read once and given to all of them, lowest
first, the recent ones from a ring in memory. Compaction overtakes only the unsynced: those that
still need a revision below it are canceled with `compact_revision` (T25, T26).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sortedcontainers import SortedDict

from datastore.shim.backends.api import BackendError
from datastore.shim.errors import Compacted, StoreError
from datastore.shim.mvcc.version import Change
from datastore.shim.watch.catchup import Backlog, Past, Serving
from datastore.shim.watch.events import Event, fragments
from datastore.shim.watch.groups import Group, Groups
from datastore.shim.watch.history import HistoryReader
from datastore.shim.watch.watcher import Feed, State, Step, Watcher, WatchSpec, WatchStream

if TYPE_CHECKING:
    from datastore.shim.mvcc.store import Store

logger = logging.getLogger(__name__)

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0


class WatchCounts(NamedTuple):
    """What the metrics show."""

    streams: int
    watchers: int
    slow: int
    events: int


class Hub:
    """All watchers of one server.

    Args:
        store: the index, already at the position that the hub starts from.
        history: where unsynced watchers are fed from.
        stream_bytes: unsent bytes above which a stream gets nothing more until it drains.
        fragment_bytes: the largest response for watchers that asked for fragments.
    """

    def __init__(
        self,
        store: Store,
        history: HistoryReader,
        *,
        stream_bytes: int = 4 << 20,
        fragment_bytes: int = (3 << 19) + (512 << 10),
    ) -> None:
        self.revision = store.revision
        self.stream_bytes = stream_bytes
        self._fragment_bytes = fragment_bytes
        self._compacted = store.compacted
        self._history = history
        self._feeds: dict[WatchStream, Feed] = {}
        self._synced = Groups()
        self._backlog = Backlog()
        self._waiting: SortedDict[int, dict[Watcher, None]] = SortedDict()
        self._notified: dict[Watcher, None] = {}
        self._events = 0
        self._lagging = {part: asyncio.Event() for part in Past}

    def watch(self, spec: WatchSpec, stream: WatchStream, watch_id: int) -> Watcher:
        """Register a watcher at the current position and return it.

        Nothing is handed over here, so that the caller can queue `created` first, with
        `Watcher.created_revision` in its header, before the loop turns.
        """
        feed = self._feeds.get(stream)
        if feed is None:
            feed = self._feeds[stream] = Feed(stream)
        watcher = Watcher(watch_id, spec, feed, self.revision)
        if watcher.state is State.SYNCED:
            self._synced.add(watcher)
        elif watcher.state is State.WAITING:
            self._waiting.setdefault(watcher.next, {})[watcher] = None
        else:
            self._backlog.add(watcher)
            self._wake_all()
        if spec.progress_notify:
            self._notified[watcher] = None
        return watcher

    def cancel(self, watcher: Watcher) -> None:
        """End a watcher: nothing is handed over for it any more. Idempotent.

        Nothing is handed over here, so that the caller can queue `canceled`.
        """
        if watcher.state is not State.DONE:
            self._end(watcher)
            self._leave(watcher.feed)

    def close(self, stream: WatchStream) -> None:
        """End all watchers of a stream. Idempotent."""
        feed = self._feeds.pop(stream, None)
        if feed is not None:
            for watcher in list(feed.watchers):
                self._end(watcher)

    def drained(self, stream: WatchStream) -> None:
        """Resume a stream whose unsent bytes have fallen to half of `stream_bytes`."""
        feed = self._feeds.get(stream)
        if feed is not None and feed.blocked:
            feed.blocked = False
            self._answer(feed)
            if feed.behind:
                self._wake_all()

    def _end(self, watcher: Watcher) -> None:
        if watcher.state is State.SYNCED:
            self._synced.remove(watcher)
        elif watcher.state is State.UNSYNCED:
            self._backlog.remove(watcher)
        elif watcher.state is State.WAITING:
            del self._waiting[watcher.next][watcher]
            if not self._waiting[watcher.next]:
                del self._waiting[watcher.next]
        watcher.move(Step.END)
        del watcher.feed.watchers[watcher]
        self._notified.pop(watcher, None)

    def _leave(self, feed: Feed) -> None:
        """See to a stream that has one watcher less."""
        if feed.watchers:
            # Not at once: the watcher's `canceled` goes first, or a progress answer that its end
            # sets free would tell it too that it has everything.
            asyncio.get_running_loop().call_soon(self._answer, feed)
        else:
            self._feeds.pop(feed.stream, None)

    def publish(self, revision: int, changes: Sequence[Change]) -> None:
        """Hand the changes of one committed revision to all synced watchers. Hot.

        Called for each revision in order, in the same step of the loop as `Store.apply`.
        """
        events = [Event(change) for change in changes]
        self.revision = revision
        self._history.ring.append(revision, events)
        reached = self._reach(revision) if self._waiting else ()
        missed: list[Watcher] = []
        for group, parts in self._synced.gather(events).items():
            if parts is None:
                for watcher in group.watchers:
                    watcher.owed = not watcher.feed.blocked
                missed += group.watchers
            else:
                self._deliver_live(group, revision, parts, missed)
        for watcher in missed:
            self._synced.remove(watcher)
            watcher.move(Step.MISS)
            watcher.next = revision
            self._backlog.add(watcher)
        if missed:
            self._wake_all()
        for watcher in reached:
            self._answer(watcher.feed)

    def _deliver_live(
        self, group: Group, revision: int, parts: list[bytes], missed: list[Watcher]
    ) -> None:
        body = b"".join(parts)
        large = len(body) > self._fragment_bytes
        limit = self.stream_bytes
        delivered = 0
        for watcher in group.watchers:
            feed = watcher.feed
            if feed.blocked:
                missed.append(watcher)
                continue
            delivered += 1
            watcher.sent = True
            if large and watcher.spec.fragment:
                self._deliver_parts(watcher, revision, parts)
            elif feed.stream.events(watcher, revision, body, last_part=True) > limit:
                feed.blocked = True
        self._events += delivered * len(parts)

    def _deliver_parts(self, watcher: Watcher, revision: int, parts: Iterable[bytes]) -> None:
        feed = watcher.feed
        *bodies, final = fragments(parts, self._fragment_bytes)
        for body in bodies:
            feed.stream.events(watcher, revision, body, last_part=False)
        pending = feed.stream.events(watcher, revision, final, last_part=True)
        feed.blocked = pending > self.stream_bytes

    def _reach(self, revision: int) -> list[Watcher]:
        """Make those synced that have been waiting for this revision."""
        reached: list[Watcher] = []
        while self._waiting and self._waiting.peekitem(0)[0] <= revision:
            reached += self._waiting.popitem(0)[1]
        for watcher in reached:
            watcher.move(Step.REACH)
            self._synced.add(watcher)
        return reached

    def request_progress(self, stream: WatchStream) -> None:
        """Answer once at watch id -1, now or when all watchers of the stream are synced.

        A stream without watchers gets no answer. A later request joins one that is kept.
        """
        feed = self._feeds.get(stream)
        if feed is not None:
            feed.progress_wanted = True
            self._answer(feed)

    def progress_tick(self) -> None:
        """Notify the synced watchers that asked for it and got no event since the last tick."""
        for watcher in self._notified:
            if watcher.sent:
                watcher.sent = False
            elif watcher.state is State.SYNCED and not watcher.feed.blocked:
                watcher.feed.stream.progress(watcher, self.revision)

    def _answer(self, feed: Feed) -> None:
        # A blocked stream keeps its request: answers must not pile up where nobody reads.
        if feed.progress_wanted and feed.watchers and not feed.behind and not feed.blocked:
            feed.progress_wanted = False
            feed.stream.progress(None, self.revision)

    def compacted(self, revision: int) -> None:
        """Cancel the unsynced watchers that need events below the compacted revision.

        Not those that were synced and wait for a value that this server has let go: they would
        have had the event before the compaction, and the ring still has it.
        """
        self._compacted = max(self._compacted, revision)
        first = self._history.ring.first
        for watcher in self._backlog.below(self._compacted):
            if watcher.owed and watcher.next >= first:
                continue
            self.cancel(watcher)
            watcher.feed.stream.canceled(watcher, self._compacted)

    def reset(self, store: Store) -> None:
        """Go on with a store that was loaded anew: changes between the two were not published."""
        first = self.revision + 1
        self._history.reset(store)
        self.revision = store.revision
        if store.revision >= first:
            self._waiting.clear()
            for feed in self._feeds.values():
                for watcher in feed.watchers:
                    self._jump(watcher, first)
            self._wake_all()
        self.compacted(store.compacted)

    def _jump(self, watcher: Watcher, first: int) -> None:
        if watcher.state is State.WAITING:
            if watcher.next > self.revision:
                self._waiting.setdefault(watcher.next, {})[watcher] = None
                return
            watcher.move(Step.REACH)
        elif watcher.state is State.SYNCED:
            self._synced.remove(watcher)
            watcher.next = first
        else:
            return
        watcher.move(Step.MISS)
        self._backlog.add(watcher)

    async def run(self) -> None:
        """Feed unsynced watchers from history until cancelled.

        Those in the ring and those before it are fed side by side, so that a slow or absent
        database delays nobody who does not need it.
        """
        async with asyncio.TaskGroup() as group:
            for part in Past:
                group.create_task(self._chase(part))

    async def _chase(self, part: Past) -> None:
        pause, overtaken_at = 0.0, -1
        while True:
            await self._lagging[part].wait()
            self._lagging[part].clear()
            try:
                while await self._catch_up(part):
                    pause = 0.0
                    await asyncio.sleep(0)
            except Compacted as overtaken:
                if overtaken.revision == overtaken_at:
                    # Once more was enough for previous values, which are absent then.
                    self._backlog.give_up(overtaken_at)
                overtaken_at = overtaken.revision
                self.compacted(overtaken.revision)
            except (StoreError, BackendError) as fault:
                if not pause:
                    logger.warning("watchers that lag wait: history cannot be read: %s", fault)
            else:
                continue
            self._lagging[part].set()
            pause = min(max(2 * pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _catch_up(self, part: Past) -> bool:
        """Serve one stretch of a part of the past; return whether anyone lags there."""
        self.compacted(self._compacted)
        first = self._backlog.first(part, self._history.ring.first)
        if first is None:
            return False
        serving = await self._backlog.prepare(self._history, first, self.revision)
        self._serve(serving)
        # Somebody may now be in the other part: caught up with the ring, or overtaken by it.
        self._wake_all()
        return True

    def _wake_all(self) -> None:
        for event in self._lagging.values():
            event.set()

    def _serve(self, serving: Serving) -> None:
        """Hand a stretch over. One step of the loop, as `publish` is."""
        for watcher in serving.receivers:
            feed = watcher.feed
            if feed.blocked:
                continue
            parts = serving.parts(watcher)
            if parts:
                watcher.sent = True
                self._events += len(parts)
                self._deliver_past(watcher, serving, parts)
            watcher.next = serving.last + 1
            if watcher.next > self.revision:
                self._backlog.remove(watcher)
                watcher.move(Step.CATCH_UP)
                watcher.owed = False
                self._synced.add(watcher)
                self._answer(feed)

    def _deliver_past(self, watcher: Watcher, serving: Serving, parts: Sequence[bytes]) -> None:
        feed = watcher.feed
        body = serving.body(watcher)
        if watcher.spec.fragment and len(body) > self._fragment_bytes:
            self._deliver_parts(watcher, self.revision, parts)
        elif feed.stream.events(watcher, self.revision, body, last_part=True) > self.stream_bytes:
            feed.blocked = True

    def horizon(self) -> int | None:
        """Return the oldest revision that an unsynced watcher still needs."""
        return self._backlog.lowest()

    def counts(self) -> WatchCounts:
        """Return how many streams, watchers and slow watchers there are, and events so far."""
        watchers = sum(len(feed.watchers) for feed in self._feeds.values())
        return WatchCounts(len(self._feeds), watchers, len(self._backlog), self._events)
