"""One server: builds the parts, runs them, and takes them down in order."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from datastore.dsn import Dsn
from datastore.shim.auth.passwords import Passwords
from datastore.shim.auth.tokens import Tokens
from datastore.shim.backends.api import Backend, Member
from datastore.shim.compactor import Compactor
from datastore.shim.errors import Stopped
from datastore.shim.expirer import Expirer
from datastore.shim.follower import follow
from datastore.shim.gateway.app import Gateway
from datastore.shim.gateway.front import Front
from datastore.shim.health import Health
from datastore.shim.http import Checks, HttpServer, Pages
from datastore.shim.kernel_sync import KernelSync, open_kernel_sync
from datastore.shim.lanes import thread_lane, thread_lanes
from datastore.shim.members import Members
from datastore.shim.metrics import Metrics
from datastore.shim.options import DEFAULT_NAME, ServeOptions, is_loopback
from datastore.shim.position import PositionFile, PositionKeeper
from datastore.shim.pruner import Pruner
from datastore.shim.reader import Reader
from datastore.shim.replica import Replica
from datastore.shim.rpc.auth import AuthService
from datastore.shim.rpc.cluster import ClusterService
from datastore.shim.rpc.concurrency import Keys
from datastore.shim.rpc.downgrade import DowngradeService
from datastore.shim.rpc.election import ElectionService
from datastore.shim.rpc.guard import Guard
from datastore.shim.rpc.hashes import HashService
from datastore.shim.rpc.header import Headers, derive_member_id
from datastore.shim.rpc.health import HealthService
from datastore.shim.rpc.kv import KvService, RequestLimits
from datastore.shim.rpc.lease import LeaseService
from datastore.shim.rpc.lock import LockService
from datastore.shim.rpc.maintenance import MaintenanceService, Release
from datastore.shim.rpc.quota import Quota
from datastore.shim.rpc.reflection import ReflectionService
from datastore.shim.rpc.service import Desk
from datastore.shim.rpc.snapshot import SnapshotService
from datastore.shim.rpc.watch import WatchService
from datastore.shim.timing import Observe, TimedBackend, tell_slow
from datastore.shim.transport.api import Limits, TlsFiles, Transport
from datastore.shim.watch.history import HistoryReader
from datastore.shim.watch.hub import Hub
from datastore.shim.writer import Writer

log = logging.getLogger(__name__)

API_VERSION: Final = "3.7.3"
"""The etcd whose API this is. Plain semver: kube-apiserver parses it (contract 3.4)."""
STORAGE_VERSION: Final = "3.7.0"
RECV_OVERHEAD: Final = 512 << 10
GRACE_SECONDS: Final = 5.0


class CannotListen(Exception):
    """A URL cannot be bound."""

    def __init__(self, url: str, error: OSError) -> None:
        super().__init__(f"cannot listen on {url}: {(error.strerror or str(error)).lower()}")


class Shim:
    """An etcd over one backend. Use as an asynchronous context manager.

    Args:
        options: What to serve.
        backend: The backend, where it is not to be made from `options.datastore`.
        transport: The transport, where it is not to be made from `options.transport`.
    """

    backend: TimedBackend
    replica: Replica
    kv: KvService
    hub: Hub
    members: Members
    writer: Writer
    desk: Desk
    headers: Headers
    release: Release
    quota: Quota

    def __init__(
        self,
        options: ServeOptions,
        backend: Backend | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.health = Health()
        self.health.on_change(self._tell_health)
        self.urls: list[str] = []
        """Client URLs as they were bound."""
        self.http_urls: list[str] = []
        self._options = options
        self._given = backend
        self._metrics = Metrics(extensive=options.extensive_metrics)
        self._keeper: PositionKeeper | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._kernel: KernelSync | None = None
        self._transport = transport
        self._http: HttpServer | None = None
        self._passwords: Passwords | None = None
        self._translation = thread_lane("gateway")

    async def __aenter__(self) -> Self:
        """Open the store and listen.

        Raises:
            NotReady: the store cannot be opened; the message says what to do.
            BackendError: the store cannot be read.
            CannotListen: an address cannot be bound.
        """
        try:
            await self._open()
            await self._listen()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Refuse new calls, finish those under way, close the store."""
        await self._stop()

    async def failure(self) -> str:
        """Wait until the store must not be served any more and return why."""
        return await self.health.failure()

    async def _open(self) -> None:
        options = self._options
        if Dsn(options.datastore).scheme == "sqlite":
            self._kernel = open_kernel_sync()
        backend = self._given or _connect(options, syncs_beside=self._kernel is not None)
        self.backend = TimedBackend(backend, self._observe_sql())
        lanes = thread_lanes()
        self.replica = Replica(self.backend, lanes, self.health, cache_bytes=options.cache_bytes)
        position = PositionFile(options.position_file) if options.position_file else None
        begun = time.monotonic()
        await self.replica.start(position.check if position else None)
        self._keeper = PositionKeeper(self.replica, position) if position else None
        store, replica = self.replica.store, self.replica
        self.hub = Hub(
            store,
            HistoryReader(store, replica.history, replica.some_values),
            fragment_bytes=options.max_request_bytes + RECV_OVERHEAD,
        )
        replica.attach(self.hub)
        self.writer = Writer(replica, kernel=self._kernel)
        cluster_id = replica.head.cluster_id
        self._name, member_id = _identify(options, cluster_id, shared=self.backend.shared)
        self.headers = Headers(cluster_id, member_id)
        self.release = Release(options.version or API_VERSION, STORAGE_VERSION)
        log.info(
            "store opened",
            extra={
                "revision": store.revision,
                "keys": store.key_count,
                "cluster": f"{cluster_id:x}",
                "seconds": round(time.monotonic() - begun, 2),
            },
        )

    def _observe_sql(self) -> Observe:
        slow, observe = self._options.slow_sql, self._metrics.observe_sql
        return tell_slow(observe, slow) if slow else observe

    async def _listen(self) -> None:
        options, replica, writer = self._options, self.replica, self.writer
        transport = self._transport = self._transport or _make_transport(options)
        tokens = options.auth.tokens()
        guard = Guard(replica, tokens, trust_certificates=options.client_cert_auth)
        observe = self._metrics.observe_call
        self.desk = desk = Desk(transport, self.headers, self.health, guard, observe)
        # Ports of 0 are known only after binding: the list is filled then.
        advertised = list(options.advertise_client_urls)
        me = Member(self.headers.member_id, self._name, advertised, 0)
        self.members = members = Members(replica, me, self.hub.horizon)
        desk.elsewhere = lambda: not members.alone
        reader = Reader(replica, chunk_bytes=options.max_request_bytes)
        self.quota = quota = Quota(replica, writer, self.headers.member_id, options.quota_bytes)
        expirer, pruner = Expirer(replica, writer), Pruner(replica, members)
        self._serve(reader, expirer, pruner, tokens)
        self._metrics.show(self)
        self._run(
            follow(replica),
            writer.run(),
            self.hub.run(),
            quota.run(),
            self._notify_progress(),
            expirer.run(),
            pruner.run(),
        )
        self._http, front = self._make_http(reader)
        transport.http1(self._http.connect)
        transport.plain(front)
        await self._bind(transport, self._http)
        advertised[:] = options.advertise_client_urls or self.urls
        self._run(members.run())
        if options.auto_compaction is not None:
            self._run(Compactor(replica, writer, members, options.auto_compaction).run())
        if self._keeper is not None:
            self._run(self._keeper.run())

    def _serve(self, reader: Reader, expirer: Expirer, pruner: Pruner, tokens: Tokens) -> None:
        """Register every RPC at the desk."""
        options, desk, members = self._options, self.desk, self.members
        replica, writer, quota = self.replica, self.writer, self.quota
        limits = RequestLimits(options.max_request_bytes, options.max_txn_ops)
        self.kv = KvService(desk, reader, writer, pruner, quota=quota, limits=limits)
        WatchService(desk, replica, self.hub)
        min_ttl = options.min_lease_ttl
        lease = LeaseService(desk, replica, writer, expirer, quota=quota, min_ttl=min_ttl)
        keys = Keys(self.kv, lease, self.hub)
        LockService(desk, keys)
        ElectionService(desk, keys)
        self._passwords = Passwords(thread_lane("passwords"), options.auth.bcrypt_cost)
        AuthService(desk, replica, writer, tokens, self._passwords)
        ClusterService(desk, members)
        MaintenanceService(
            desk,
            replica,
            writer,
            quota,
            release=self.release,
            members=members,
            downgrade=DowngradeService(desk, replica, API_VERSION),
        )
        HashService(desk, replica)
        SnapshotService(desk, replica, members, STORAGE_VERSION)
        HealthService(desk)
        ReflectionService(desk)

    def _make_http(self, reader: Reader) -> tuple[HttpServer, Front]:
        """Return what serves HTTP, and what it serves on the ports of clients."""
        options = self._options
        checks = Checks(self.health, self.replica, reader)
        pages = Pages(checks, self._metrics, self.release).application()
        max_recv = options.max_request_bytes + RECV_OVERHEAD
        gateway = Gateway(self.desk, max_recv, self._translation) if options.grpc_gateway else None
        front = Front(pages, gateway, options.browsers)
        return HttpServer(pages, front), front

    async def _bind(self, transport: Transport, http: HttpServer) -> None:
        tls = self._options.tls
        for url in self._options.listen_client_urls:
            try:
                _make_directory(url)
                self.urls.append(await transport.listen(url, tls if _is_secure(url) else None))
            except OSError as error:
                raise CannotListen(url, error) from error
            if warning := _weakness(url, tls):
                log.warning("%s", warning, extra={"url": self.urls[-1]})
        for url in self._options.listen_metrics_urls:
            try:
                _make_directory(url)
                self.http_urls.append(await http.listen(url, tls))
            except OSError as error:
                raise CannotListen(url, error) from error
        log.info("serving", extra={"urls": ",".join(self.urls), "http": ",".join(self.http_urls)})

    async def _stop(self) -> None:
        if self._transport is not None and hasattr(self, "desk"):
            self.desk.end_streams(Stopped())
            await self._transport.drain(GRACE_SECONDS)
        if self._http is not None:
            await self._http.stop()
        if self._passwords is not None:
            self._passwords.close()
        self._translation.close()
        if self._tasks:
            await self.writer.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._keeper is not None:
            await self._keeper.save()
        if hasattr(self, "replica"):
            await self.replica.close()
        if self._kernel is not None:
            self._kernel.close()
        if self.urls:
            log.info("stopped")

    def _tell_health(self) -> None:
        if self.health.serving:
            log.info("the store can be served")
        else:
            log.warning("the store cannot be served", extra={"reason": self.health.reason})
        if not self.backend.shared or not hasattr(self, "writer"):
            return  # where nobody else writes it is the next write that finds the store again
        if self.health.serving:
            self.writer.resume()
        else:
            self.writer.hold(self.health.reason)

    def _run(self, *works: Coroutine[object, object, None]) -> None:
        """Start what goes on for as long as the server lives."""
        for work in works:
            task = asyncio.create_task(work)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A part that dies takes the server with it: half a server would lie."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a part of the server died", exc_info=error)
            self.health.fail(f"a part of the server died: {error!r}")

    async def _notify_progress(self) -> None:
        interval = self._options.watch_progress_notify_seconds
        while True:
            await asyncio.sleep(interval * random.uniform(1.0, 1.1))  # noqa: S311 - as etcd
            self.hub.progress_tick()


def _make_transport(options: ServeOptions) -> Transport:
    """Return the transport of the options; only that one's libraries are loaded."""
    if options.transport == "http2":
        from datastore.shim.transport.http2.server import Http2Transport

        return Http2Transport(_to_limits(options))
    from datastore.shim.transport.grpcio import GrpcioTransport

    return GrpcioTransport(_to_limits(options))


def _to_limits(options: ServeOptions) -> Limits:
    return Limits(
        max_recv=options.max_request_bytes + RECV_OVERHEAD,
        max_streams=options.max_concurrent_streams,
        keepalive=options.keepalive.interval,
        keepalive_timeout=options.keepalive.timeout,
        min_ping=options.keepalive.min_time,
    )


def _connect(options: ServeOptions, *, syncs_beside: bool) -> Backend:
    from datastore.shim.backends.registry import connect

    if options.weakness:
        log.warning("%s", options.weakness, extra={"advice": "give --datastore-ca-file"})
    return connect(options.datastore, options.access, syncs_beside=syncs_beside)


def _identify(options: ServeOptions, cluster_id: int, *, shared: bool) -> tuple[str, int]:
    """Return this member's name and id, which differ from those of other servers."""
    if not shared:
        return options.name, derive_member_id(cluster_id, options.name)
    name = socket.gethostname() if options.name == DEFAULT_NAME else options.name
    urls = options.advertise_client_urls or options.listen_client_urls
    return name, derive_member_id(cluster_id, name, urls)


def _make_directory(url: str) -> None:
    """Make the directory of a unix socket, for this user alone; one that exists stays as it is."""
    if url.startswith("unix"):
        Path(urlsplit(url).path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _weakness(url: str, tls: TlsFiles | None) -> str:
    """Say who may use a listener that asks nobody who he is."""
    if url.startswith("http:") and is_loopback(url):
        return "plain text: every local user can read and write everything"
    if url.startswith("https:") and not is_loopback(url) and not (tls and tls.require):
        return (
            "no client certificates: whoever reaches this address can read and write everything; "
            "give --trusted-ca-file"
        )
    return ""


def _is_secure(url: str) -> bool:
    return url.startswith(("https:", "unixs:"))
