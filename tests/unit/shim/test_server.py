"""One server in the process, over the memory backend, through real clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from datastore.etcdpb import health_pb2, health_pb2_grpc, rpc_pb2, rpc_pb2_grpc
from datastore.shim.backends.api import Commit, Head, Meta, NotReady, Size
from datastore.shim.backends.memory import Log, MemoryBackend
from datastore.shim.errors import CorruptStore, NoLeader, NoSpace, Stopped
from datastore.shim.options import ServeOptions
from datastore.shim.server import CannotListen, Shim, _weakness
from datastore.shim.transport.api import TlsFiles

Metadata = Sequence[tuple[str, str]]


def options(directory: Path, **changes: object) -> ServeOptions:
    values: dict[str, object] = {
        "datastore": "memory://",
        "listen_client_urls": (f"unix://{directory}/grpc.sock",),
        "listen_metrics_urls": (f"unix://{directory}/http.sock",),
        **changes,
    }
    return ServeOptions(**values)  # type: ignore[arg-type] # names and types are the fields'


class Client:
    """The stubs of one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.kv = rpc_pb2_grpc.KVStub(channel)
        self.lease = rpc_pb2_grpc.LeaseStub(channel)
        self.cluster = rpc_pb2_grpc.ClusterStub(channel)
        self.health_stub = health_pb2_grpc.HealthStub(channel)
        self.maintenance = rpc_pb2_grpc.MaintenanceStub(channel)

    def watch(self, metadata: Metadata = ()) -> grpc.aio.StreamStreamCall[bytes, bytes]:
        method = self.channel.stream_stream("/etcdserverpb.Watch/Watch")
        return method(metadata=tuple(metadata))

    async def health(self) -> int:
        answer = await self.health_stub.Check(health_pb2.HealthCheckRequest())
        return answer.status


@asynccontextmanager
async def serving(
    directory: Path, backend: MemoryBackend | None = None, **changes: object
) -> AsyncIterator[tuple[Shim, Client]]:
    async with (
        Shim(options(directory, **changes), backend or MemoryBackend()) as shim,
        # As etcd's own client: a message may have any size.
        grpc.aio.insecure_channel(
            f"unix:{directory}/grpc.sock", options=[("grpc.max_receive_message_length", -1)]
        ) as channel,
    ):
        yield shim, Client(channel)


def http(directory: Path) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=f"{directory}/http.sock")
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def create(**fields: object) -> bytes:
    request = rpc_pb2.WatchCreateRequest(**fields)  # type: ignore[arg-type] # the fields' own
    return rpc_pb2.WatchRequest(create_request=request).SerializeToString()


async def answer(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> rpc_pb2.WatchResponse:
    message = await call.read()
    assert isinstance(message, bytes)
    return rpc_pb2.WatchResponse.FromString(message)


async def ended(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> tuple[grpc.StatusCode, str]:
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code(), await call.details()


async def test_what_is_written_is_read_with_one_identity(tmp_path: Path) -> None:
    async with serving(tmp_path) as (shim, client):
        put = await client.kv.Put(rpc_pb2.PutRequest(key=b"k", value=b"v"))
        got = await client.kv.Range(rpc_pb2.RangeRequest(key=b"k"))
        assert put.header == got.header
        assert (got.header.revision, got.kvs[0].value, got.count) == (2, b"v", 1)
        assert got.header.member_id == shim.headers.member_id


class Endless(MemoryBackend):
    """A backend whose log has no end."""

    def __init__(self, began: Callable[[], object]) -> None:
        super().__init__()
        self._began = began

    @contextmanager
    def load(self) -> Iterator[tuple[Head, Commit, Iterator[Sequence[Meta]]]]:
        with super().load() as (head, position, _):
            yield head, position, self._endless()

    def _endless(self) -> Iterator[Sequence[Meta]]:
        self._began()
        while True:
            yield ()


async def test_a_load_ends_when_the_server_is_not_wanted_any_more(tmp_path: Path) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    shim = Shim(options(tmp_path), Endless(lambda: loop.call_soon_threadsafe(began.set)))
    opening = asyncio.create_task(shim.__aenter__())
    await began.wait()
    opening.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait((opening,))
    assert opening.cancelled()


@pytest.mark.parametrize(
    ("url", "ca", "warning"),
    [
        ("http://127.0.0.1:2379", None, "plain text: every local user"),
        ("https://192.0.2.1:2379", None, "no client certificates: whoever reaches this address"),
        ("https://192.0.2.1:2379", Path("ca.crt"), ""),
        ("https://127.0.0.1:2379", None, ""),
        ("unix:///run/byre/shim.sock", None, ""),
    ],
)
def test_a_listener_that_asks_nobody_who_he_is_is_warned_of(
    url: str, ca: Path | None, warning: str
) -> None:
    tls = TlsFiles(Path("s.crt"), Path("s.key"), ca, require=ca is not None)
    assert _weakness(url, tls).startswith(warning)
    assert bool(_weakness(url, tls)) == bool(warning)


class SmallDisk(MemoryBackend):
    """A backend that tells how much its disk can take."""

    spare = 1 << 20

    def size(self) -> Size:
        return super().size()._replace(spare=self.spare)


async def test_a_disk_that_is_nearly_full_refuses_what_adds_until_there_is_space(
    tmp_path: Path,
) -> None:
    backend = SmallDisk()
    put = rpc_pb2.PutRequest(key=b"k", value=bytes(1000))
    async with serving(tmp_path, backend) as (_, client):
        await client.kv.Put(put)
        backend.spare = 0
        await client.maintenance.Status(rpc_pb2.StatusRequest())  # which measures
        for refused in (client.kv.Put(put), client.lease.LeaseGrant(grant_request())):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await refused
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.details() == NoSpace.text
        await client.kv.DeleteRange(rpc_pb2.DeleteRangeRequest(key=b"k"))
        status = await client.maintenance.Status(rpc_pb2.StatusRequest())
        assert status.errors == [NoSpace.text]
        backend.spare = 1 << 20
        await client.kv.Put(put)
        status = await client.maintenance.Status(rpc_pb2.StatusRequest())
        assert not status.errors


def grant_request() -> rpc_pb2.LeaseGrantRequest:
    return rpc_pb2.LeaseGrantRequest(TTL=60)


async def test_the_identity_survives_a_restart(tmp_path: Path) -> None:
    log, headers = Log(), []
    for _ in range(2):
        async with serving(tmp_path, MemoryBackend(log)) as (_, client):
            headers.append((await client.kv.Range(rpc_pb2.RangeRequest(key=b"k"))).header)
    assert headers[0] == headers[1]
    assert headers[0].cluster_id
    assert headers[0].member_id


async def test_the_member_list_tells_where_the_server_listens(tmp_path: Path) -> None:
    async with serving(tmp_path, name="n1") as (shim, client):
        listed = await client.cluster.MemberList(rpc_pb2.MemberListRequest(linearizable=True))
        status = await client.maintenance.Status(rpc_pb2.StatusRequest())
    (member,) = listed.members
    assert (member.name, list(member.clientURLs)) == ("n1", shim.urls)
    assert member.ID == status.leader == status.header.member_id
    assert (listed.header.revision, status.version, status.isLearner) == (0, "3.7.3", False)


async def test_a_watch_goes_on_after_a_half_close(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        call = client.watch()
        await call.write(create(key=b"k"))
        await call.done_writing()
        assert (await answer(call)).created
        await client.kv.Put(rpc_pb2.PutRequest(key=b"k", value=b"v"))
        response = await answer(call)
        assert (response.watch_id, response.events[0].kv.value) == (0, b"v")
        call.cancel()


async def test_a_watch_that_cannot_be_is_an_answer_not_an_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        call = client.watch()
        for request in (
            create(key=b"k", watch_id=7),
            create(key=b"k", watch_id=7),
            create(key=b"b", range_end=b"a"),
            create(key=b"k", start_revision=-1),
            create(key=b"k"),
        ):
            await call.write(request)
        answers = [await answer(call) for _ in range(5)]
        call.cancel()
    assert all(each.created for each in answers)
    assert [each.watch_id for each in answers] == [7, -1, -1, -1, 0]
    assert [each.cancel_reason for each in answers[1:4]] == [
        "mvcc: duplicate watch ID provided on the WatchStream",
        "mvcc: watcher range is empty",
        "etcdserver: mvcc: required revision has been compacted",
    ]


async def test_a_slow_reader_of_a_watch_gets_everything_once_it_reads(tmp_path: Path) -> None:
    value = bytes(1 << 20)
    async with serving(tmp_path) as (_, client):
        call = client.watch()
        await call.write(create(key=b"k", prev_kv=True))
        assert (await answer(call)).created
        for _ in range(24):
            await client.kv.Put(rpc_pb2.PutRequest(key=b"k", value=value))
        revisions: list[int] = []
        while len(revisions) < 24:
            revisions += [event.kv.mod_revision for event in (await answer(call)).events]
        call.cancel()
    assert revisions == list(range(2, 26))


@pytest.mark.parametrize("leader", [True, False])
async def test_without_a_database_who_asks_for_a_leader_is_refused(
    tmp_path: Path, leader: bool
) -> None:
    metadata = (("hasleader", "true"),) if leader else ()
    async with serving(tmp_path) as (shim, client):
        shim.health.away("the database is away")
        request = client.kv.Range(rpc_pb2.RangeRequest(key=b"k"), metadata=metadata)
        if not leader:
            assert (await request).header.revision == 1
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await request
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == NoLeader.text


async def test_streams_that_asked_for_a_leader_end_when_it_is_lost(tmp_path: Path) -> None:
    async with serving(tmp_path) as (shim, client):
        with_leader, without = client.watch([("hasleader", "true")]), client.watch()
        for call in (with_leader, without):
            await call.write(create(key=b"k"))
            assert (await answer(call)).created
        shim.desk.end_streams(NoLeader(), with_leader_only=True)
        assert await ended(with_leader) == (grpc.StatusCode.UNAVAILABLE, NoLeader.text)
        await client.kv.Put(rpc_pb2.PutRequest(key=b"k"))
        assert (await answer(without)).events
        without.cancel()


async def test_a_store_that_failed_is_not_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as (shim, client):
        call = client.watch()
        await call.write(create(key=b"k"))
        assert (await answer(call)).created
        shim.health.fail("another history")
        assert await ended(call) == (grpc.StatusCode.DATA_LOSS, CorruptStore.text)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.kv.Range(rpc_pb2.RangeRequest(key=b"k"))
        assert caught.value.code() is grpc.StatusCode.DATA_LOSS
        assert await shim.failure() == "another history"
        async with http(tmp_path) as pages:
            assert (await pages.get("/livez")).status_code == 503


async def test_stopping_ends_streams_with_etcds_words(tmp_path: Path) -> None:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/grpc.sock") as channel:
        async with Shim(options(tmp_path), MemoryBackend()):
            call = Client(channel).watch()
            await call.write(create(key=b"k"))
            assert (await answer(call)).created
        assert await ended(call) == (grpc.StatusCode.UNAVAILABLE, Stopped.text)


async def test_health_tells_the_truth(tmp_path: Path) -> None:
    serving_now, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    async with serving(tmp_path) as (shim, client):
        watch = client.health_stub.Watch(health_pb2.HealthCheckRequest())
        assert await client.health() == serving_now
        first = await watch.read()
        shim.health.away("gone")
        second = await watch.read()
        assert await client.health() == not_serving
        for told, status in ((first, serving_now), (second, not_serving)):
            assert isinstance(told, health_pb2.HealthCheckResponse)
            assert told.status == status
        watch.cancel()


async def test_an_unknown_health_service_is_not_found(tmp_path: Path) -> None:
    request = health_pb2.HealthCheckRequest(service="x")
    async with serving(tmp_path) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.health_stub.Check(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_pages_answer_as_etcds(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client), http(tmp_path) as pages:
        assert (await pages.get("/health")).json() == {"health": "true", "reason": ""}
        assert (await pages.get("/version")).json()["etcdserver"] == "3.7.3"
        assert (await pages.get("/livez")).text == "ok\n"
        assert "[+]linearizable_read ok" in (await pages.get("/readyz?verbose")).text
        assert (await pages.get("/readyz/linearizable_read")).text == "ok\n"
        assert (await pages.get("/readyz/nothing")).status_code == 404
        alarm = rpc_pb2.AlarmRequest(
            action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=1, alarm=rpc_pb2.NOSPACE
        )
        await client.maintenance.Alarm(alarm)
        response = await pages.get("/health")
        assert response.status_code == 503
        assert response.json() == {"health": "false", "reason": "ALARM NOSPACE"}
        assert (await pages.get("/health?exclude=NOSPACE")).status_code == 200


async def test_metrics_have_etcds_names(tmp_path: Path) -> None:
    async with serving(tmp_path, extensive_metrics=True) as (_, client), http(tmp_path) as pages:
        await client.kv.Put(rpc_pb2.PutRequest(key=b"k"))
        lines = set((await pages.get("/metrics")).text.splitlines())
    assert "etcd_server_has_leader 1.0" in lines
    assert "etcd_debugging_mvcc_current_revision 2.0" in lines
    assert "etcd_debugging_mvcc_keys_total 1.0" in lines
    labels = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
    assert any(line.startswith("grpc_server_handled_total{") and "Put" in line for line in lines)
    assert any(labels in line and "handling_seconds_count" in line for line in lines)
    assert 'byre_sql_duration_seconds_count{operation="append"} 1.0' in lines


async def put_for_ever(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            await client.kv.Put(rpc_pb2.PutRequest(key=b"k", value=bytes(1000)))


async def test_a_database_above_its_quota_raises_an_alarm(tmp_path: Path) -> None:
    async with serving(tmp_path, quota_bytes=1) as (shim, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await put_for_ever(client)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        alarms = await client.maintenance.Alarm(rpc_pb2.AlarmRequest())
        assert [alarm.memberID for alarm in alarms.alarms] == [shim.headers.member_id]


async def test_an_address_in_use_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    wanted = ("http://127.0.0.1:0",)
    async with Shim(options(tmp_path, listen_client_urls=wanted), MemoryBackend()) as first:
        taken = options(tmp_path, listen_client_urls=tuple(first.urls), listen_metrics_urls=())
        with pytest.raises(CannotListen, match="address already in use"):
            async with Shim(taken, MemoryBackend()):
                pass


async def test_the_directory_of_a_socket_is_made_for_this_user_alone(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "shim"
    async with serving(directory) as (_, client):
        assert (await client.kv.Range(rpc_pb2.RangeRequest(key=b"k"))).header.revision == 1
        assert directory.stat().st_mode & 0o777 == 0o700


async def test_a_store_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotReady):
        async with Shim(options(tmp_path, datastore="nosuch://x")):
            pass
