"""The JSON gateway below /v3/: requests and answers that come in rows."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import pytest

from tests.support.json_client import b64
from tests.support.queues import queued


def create(key, **fields):
    return {"create_request": {"key": b64(key), **fields}}


async def test_a_watch_tells_that_it_is_there_and_then_each_event(web, client, prefix):
    async with web.stream("watch", create(prefix)) as stream:
        created = await stream.result()
        assert created == {"header": created["header"], "created": True}
        put = await client.put(prefix, b"a")
        told = await stream.result()
        (event,) = told["events"]
        assert event.keys() == {"kv"}, "a put is the default"
        assert event["kv"]["mod_revision"] == str(put.header.revision)
        await client.delete(prefix)
        (event,) = (await stream.result())["events"]
        assert (event["type"], event["kv"].keys()) == ("DELETE", {"key", "mod_revision"})


async def test_a_watch_begins_in_the_past_and_shows_what_was_before(web, client, prefix):
    first = await client.put(prefix, b"a")
    await client.put(prefix, b"b")
    request = create(prefix, start_revision=str(first.header.revision), prev_kv=True)
    async with web.stream("watch", request) as stream:
        assert (await stream.result())["created"]
        events = (await stream.result())["events"]
        while len(events) < 2:
            events += (await stream.result())["events"]
        assert [event["kv"]["value"] for event in events] == ["YQ==", "Yg=="]
        assert events[1]["prev_kv"]["value"] == "YQ=="


async def test_one_stream_has_many_watches_which_end_one_by_one(web, client, prefix):
    requests = [
        create(prefix),
        create(prefix, watch_id="7"),
        {"cancel_request": {"watch_id": 7}},
    ]
    async with web.stream("watch", *requests) as stream:
        assert "watch_id" not in await stream.result()
        assert (await stream.result())["watch_id"] == "7"
        ended = await stream.result()
        assert (ended["watch_id"], ended["canceled"]) == ("7", True)
        await client.put(prefix)
        told = await stream.result()
        assert told["events"]
        assert "watch_id" not in told


async def test_progress_belongs_to_no_watch(web, prefix):
    requests = [create(prefix), {"progress_request": {}}]
    async with web.stream("watch", *requests) as stream:
        answers = [await stream.result(), await stream.result()]
    # etcd may answer the second request first.
    (told,) = [answer for answer in answers if "created" not in answer]
    assert told == {"header": told["header"], "watch_id": "-1"}
    assert told["header"].keys() == {"cluster_id", "member_id", "revision", "raft_term"}


async def test_requests_may_come_in_any_pieces(web, prefix):
    texts = b'{"create_request":{"key":"YQ==","filters":["NOPUT","NODELETE"]}} \n'
    texts += b'{"create_request":{"key":"YQ==","watch_id":5,"nobody":"} \\" {"}}'
    async with web.stream("watch", *(texts[n : n + 1] for n in range(len(texts)))) as stream:
        assert "watch_id" not in await stream.result()
        assert (await stream.result())["watch_id"] == "5"


@pytest.mark.parametrize("rest", [b"", b"garbage", b"[]", b'{"create_request":[]}', b'{"cre'])
async def test_events_come_whatever_follows_the_requests(web, client, prefix, rest):
    async with web.stream("watch", create(prefix), *([rest] if rest else ())) as stream:
        await stream.result()
        await client.put(prefix)
        assert (await stream.result())["events"]


async def test_a_watch_of_nothing_is_refused_on_the_stream(web, prefix):
    async with web.stream("watch", create(prefix, range_end=b64(prefix))) as stream:
        refused = await stream.result()
        assert refused["canceled"]
        assert refused["watch_id"] == "-1"
        assert refused["cancel_reason"] == "mvcc: watcher range is empty"


async def test_a_client_that_hangs_up_ends_its_watches(web, server, prefix):
    async def watchers() -> float:
        text = (await web.send("GET", "/metrics")).value
        (line,) = [
            line
            for line in text.splitlines()
            if line.startswith("etcd_debugging_mvcc_watcher_total ")
        ]
        return float(line.split()[1])

    before = await watchers()
    async with web.stream("watch", create(prefix), create(prefix)) as stream:
        await stream.result()
        await stream.result()
        assert await watchers() == before + 2
    while await watchers() > before:  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.02)


async def test_leases_are_renewed_one_after_the_other(web, client):
    lease = (await client.grant(60)).ID
    async with web.stream("lease/keepalive", {"ID": lease}, {"ID": "404"}) as stream:
        told = await stream.result()
        assert told == {"header": told["header"], "ID": str(lease), "TTL": "60"}
        told = await stream.result()
        assert told == {"header": told["header"], "ID": "404"}
        assert await stream.next() is None
        assert stream.status == 200


async def test_an_election_is_observed(web, prefix):
    name = b64(prefix)
    async with web.stream("election/observe", {"name": name}) as stream:
        won = await web.result("election/campaign", {"name": name, "value": "YQ=="})
        seen = await stream.result()
        assert (seen["kv"]["value"], seen["kv"]["key"]) == ("YQ==", won["leader"]["key"])
        await web.result("election/proclaim", {"leader": won["leader"], "value": "Yg=="})
        assert (await stream.result())["kv"]["value"] == "Yg=="


async def test_a_stream_with_one_request_refuses_one_that_makes_no_sense(web):
    answer = await web.call("election/observe", b"{")
    assert (answer.status, answer.value["code"]) == (400, 3)


async def test_a_snapshot_comes_in_parts_and_ends_with_its_sum(web):
    parts = []
    async with web.stream("maintenance/snapshot", {}) as stream:
        while (part := await stream.next()) is not None:
            parts.append(base64.b64decode(part["result"]["blob"]))
    assert hashlib.sha256(b"".join(parts[:-1])).digest() == parts[-1]


async def test_the_deadline_of_a_stream_ends_it_with_an_error(web, prefix):
    async with web.stream("watch", create(prefix), Grpc_Timeout="500m") as stream:
        await stream.result()
        answer = await stream.next()
        assert answer.keys() == {"error"}
        assert answer["error"]["code"] == 4
        assert await stream.next() is None


async def test_one_who_waits_for_a_lock_gets_it(web, client, prefix):
    held = await web.result("lock/lock", {"name": b64(prefix)})
    waiter = asyncio.create_task(web.result("lock/lock", {"name": b64(prefix)}))
    await queued(client, prefix, 2)
    await web.result("lock/unlock", {"key": held["key"]})
    assert (await waiter)["key"] != held["key"]
