"""Who calls through the JSON gateway (contract 2.10)."""

from __future__ import annotations

import ssl

import pytest

from tests.support.certificates import Authority
from tests.support.client import Client
from tests.support.json_client import JsonClient, b64
from tests.support.running import Listen

EMPTY = 400, 3, "etcdserver: user name is empty"
DENIED = 403, 7, "etcdserver: permission denied"


async def enable(web):
    """Switch auth on, with a user `root` and a user `u` who may read and write below a/."""
    for user in ("root", "u"):
        await web.result("auth/user/add", {"name": user, "password": "p"})
        await web.result("auth/role/add", {"name": user})
        await web.result("auth/user/grant", {"user": user, "role": user})
    permission = {"permType": "READWRITE", "key": b64(b"a/"), "range_end": b64(b"a0")}
    await web.result("auth/role/grant", {"name": "u", "perm": permission})
    await web.result("auth/enable")


async def token_of(web, user):
    return (await web.result("auth/authenticate", {"name": user, "password": "p"}))["token"]


@pytest.fixture
async def web(fresh):
    client = JsonClient(f"http://{fresh.target}")
    await enable(client)
    yield client
    await client.close()


async def test_a_token_in_the_authorization_header_says_who_calls(web):
    token = await token_of(web, "u")
    put = {"key": b64(b"a/1"), "value": b64(b"x")}
    assert (await web.call("kv/put", put)).refusal == EMPTY
    await web.result("kv/put", put, Authorization=token)
    await web.result("kv/put", put, Grpc_Metadata_Token=token)
    elsewhere = await web.call("kv/put", {"key": b64(b"b")}, Authorization=token)
    assert elsewhere.refusal == DENIED
    forged = await web.call("kv/put", put, Authorization="forged.1")
    assert forged.refusal == (401, 16, "etcdserver: invalid auth token")
    assert forged.headers["www-authenticate"] == "etcdserver: invalid auth token"
    root = await token_of(web, "root")
    await web.result("kv/put", {"key": b64(b"b")}, Authorization=root)
    refused = await web.call("auth/authenticate", {"name": "u", "password": "q"})
    text = "etcdserver: authentication failed, invalid user ID or password"
    assert refused.refusal == (400, 3, text)


async def test_what_users_and_roles_are_is_told(web):
    root = await token_of(web, "root")
    told = await web.result("auth/user/get", {"name": "u"}, Authorization=root)
    assert told["roles"] == ["u"]
    told = await web.result("auth/role/get", {"role": "u"}, Authorization=root)
    permission = {"permType": "READWRITE", "key": b64(b"a/"), "range_end": b64(b"a0")}
    assert told["perm"] == [permission]
    assert (await web.result("auth/status", Authorization=root))["enabled"] is True
    assert (await web.result("auth/role/list", Authorization=root))["roles"] == ["root", "u"]


async def test_a_watch_needs_permission_too(web):
    token = await token_of(web, "u")
    for key, allowed in ((b"a/1", True), (b"b", False)):
        request = {"create_request": {"key": b64(key)}}
        async with web.stream("watch", request, Authorization=token) as stream:
            told = await stream.result()
            assert told.get("canceled", False) is not allowed
            assert ("permission denied" in told.get("cancel_reason", "")) is not allowed


async def test_a_stream_that_is_refused_has_its_error_in_the_form_of_streams(web):
    token = await token_of(web, "u")
    async with web.stream("maintenance/snapshot", {}, Authorization=token) as stream:
        answer = await stream.next()
        assert answer == {"error": {"code": 7, "message": "etcdserver: permission denied"}}
        assert stream.status == 403


async def test_locks_and_elections_ask_who_calls(web):
    token = await token_of(web, "u")
    denied = 500, 2, "etcdserver: permission denied"
    for path in ("lock/lock", "election/campaign"):
        name = b64(b"a/" + path.encode())
        held = await web.result(path, {"name": name}, Authorization=token)
        assert held["header"]
        refused = await web.call(path, {"name": name})
        assert refused.refusal == (500, 2, "etcdserver: user name is empty")
        assert (await web.call(path, {"name": b64(b"b")}, Authorization=token)).refusal == denied
    refused = await web.call("election/leader", {"name": b64(b"b")}, Authorization=token)
    assert refused.refusal == denied


async def test_an_observer_without_permission_sees_the_stream_end(web):
    token = await token_of(web, "u")
    async with web.stream("election/observe", {"name": b64(b"b")}, Authorization=token) as stream:
        assert await stream.next() is None
        assert stream.status == 200


async def test_the_name_in_a_certificate_counts_for_grpc_and_is_refused_here(
    kind, launch, tmp_path
):
    authority = Authority("byre test")
    credentials = authority.credentials(tmp_path, "root")
    cert, key = authority.issue(tmp_path, "server")
    server = launch(
        kind,
        f"--cert-file={cert}",
        f"--key-file={key}",
        f"--trusted-ca-file={authority.write(tmp_path)}",
        "--client-cert-auth",
        listen=Listen.tcp(credentials),
    )
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.load_cert_chain(tmp_path / "root.pem", tmp_path / "root.key")
    web = JsonClient(f"https://{server.target}", verify=context)
    await enable(web)
    async with Client(server.target, credentials=credentials) as client:
        await client.put(b"b")
    answer = await web.call("kv/range", {"key": b64(b"b")})
    assert answer.status == 400
    assert answer.value.startswith("CommonName of client sending a request against gateway will")
    assert (await web.send("GET", "/version")).status == 200
    await web.close()
    server.close()
