"""How clients prove who they are: passwords, tokens and certificates (contract 2.10; trap 60)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.auth import (
    BAD_TOKEN,
    DENIED,
    FAILED,
    NOBODY,
    OLD,
    QUICK,
    READWRITE,
    ROOT,
    SECRET,
    Auth,
    bearing,
    logged_in,
)
from tests.support.certificates import Authority
from tests.support.client import Client, Code, Refusal, refused
from tests.support.running import Listen, Server

VERIFY_ONLY = Refusal(Code.UNKNOWN, "auth: token signing attempted with verify-only key")
EVERYTHING = (READWRITE, b"\0", b"\0")
CLOCK_NEVER_ENDS = 1 << 40

# -- passwords -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "password"), [("alice", "wrong"), ("nobody", SECRET), ("", "")])
async def test_a_wrong_name_and_a_wrong_password_are_told_alike(auth, name, password):
    await auth.user("alice")
    await auth.enable_with_root()
    with refused(FAILED):
        await auth.login(name, password)


async def test_authenticating_shows_the_revision_of_the_store(auth):
    header = (await auth.client.put(b"k")).header
    await auth.enable_with_root()
    request = pb.AuthenticateRequest(name=ROOT, password=SECRET)
    answer = await auth.client.call("Auth/Authenticate", request, pb.AuthenticateResponse)
    assert answer.header == header


async def test_who_authenticates_needs_no_identity_yet_not_even_a_good_token(guarded, auth):
    await auth.enable_with_root()
    async with bearing(guarded, "x") as client:
        assert await Auth(client).login(ROOT)


async def test_each_login_gives_a_token_of_its_own(auth):
    tokens = {await auth.enable_with_root(), await auth.login(ROOT), await auth.login(ROOT)}
    assert len(tokens) == 3


async def test_many_wrong_passwords_keep_nobody_from_reading(auth):
    """bcrypt is slow on purpose."""
    await auth.enable_with_root()
    async with asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(_fail_to_log_in(auth))
        status = await auth.status()
    assert status.enabled


async def _fail_to_log_in(auth: Auth) -> None:
    with refused(FAILED):
        await auth.login(ROOT, "wrong")


# -- tokens --------------------------------------------------------------------------------


async def test_a_token_outlasts_changes_of_other_users_and_of_roles(guarded, auth):
    await auth.user("alice", EVERYTHING)
    auth.client.metadata = (("token", await auth.enable_with_root()),)
    async with logged_in(guarded, "alice") as alice:
        await auth.user("bob")
        await auth.change_password("bob", "other")
        await auth.delete_user("bob")
        await auth.grant("alice", READWRITE, b"k")
        await alice.put(b"k")


@pytest.mark.parametrize("end", ["change_password", "delete_user", "delete_and_add"])
async def test_a_token_ends_with_the_password_and_with_the_user(guarded, auth, end):
    await auth.user("alice", EVERYTHING)
    auth.client.metadata = (("token", await auth.enable_with_root()),)
    async with logged_in(guarded, "alice") as alice:
        await alice.put(b"k")
        if end == "change_password":
            await auth.change_password("alice", SECRET)
        else:
            await auth.delete_user("alice")
        if end == "delete_and_add":
            await auth.add_user("alice")
            await auth.grant_role("alice", "alice")
        with refused(BAD_TOKEN):
            await alice.put(b"k")


async def test_tokens_end_when_auth_is_disabled(guarded, auth):
    token = await auth.enable_with_root()
    auth.client.metadata = (("token", token),)
    await auth.disable()
    auth.client.metadata = ()
    await auth.enable()
    async with bearing(guarded, token) as client:
        with refused(BAD_TOKEN):
            await client.put(b"k")
    # So that what cleans up can log in.
    assert await auth.login(ROOT)


async def test_a_changed_token_is_refused(guarded, auth):
    token = await auth.enable_with_root()
    for place in range(0, len(token), 5):
        forged = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        async with bearing(guarded, forged) as forger:
            with refused(BAD_TOKEN):
                await forger.put(b"k")


@pytest.mark.parametrize("crash", [False, True], ids=["stop", "crash"])
async def test_a_restart_with_auth_on_keeps_serving(kind, launch, crash):
    """T60: users, roles and the switch are as durable as keys."""
    if kind.startswith("memory"):
        return  # forgets everything, as it should
    server = launch(kind, QUICK)
    async with Client(server.target) as client:
        auth = Auth(client)
        await auth.user("alice", (READWRITE, b"a", b""))
        client.metadata = (("token", await auth.enable_with_root()),)
        await client.put(b"a", b"1")
        revision = await auth.revision()
    server.kill() if crash else server.stop()
    server.start()
    async with Client(server.target) as anybody, logged_in(server, "alice") as alice:
        with refused(NOBODY):
            await anybody.get(b"a")
        assert (await alice.get(b"a")).kvs[0].value == b"1"
        with refused(DENIED):
            await alice.get(b"b")
        status = await Auth(anybody).status()
        assert (status.enabled, status.authRevision) == (True, revision)
    server.close()


# -- JSON Web Tokens -----------------------------------------------------------------------


def write_keys(directory: Path, method: str) -> tuple[Path, Path]:
    """Write a pair of keys for a sign method and return where: the private and the public one."""
    key: Any = (
        rsa.generate_private_key(65537, 2048)
        if method[:2] in {"RS", "PS"}
        else ec.generate_private_key(ec.SECP384R1() if method == "ES384" else ec.SECP256R1())
        if method.startswith("ES")
        else ed25519.Ed25519PrivateKey.generate()
    )
    private, public = directory / "private.pem", directory / "public.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


@pytest.fixture
def jwt_server(kind: str, launch: Callable[..., Server], tmp_path: Path) -> Any:
    """Give what starts a server with JSON Web Tokens, and the file of its public key."""
    servers: list[Server] = []

    def start(method: str = "RS256", **options: str) -> Server:
        private, public = write_keys(tmp_path, method)
        given = {"sign-method": method, "priv-key": str(private), "pub-key": str(public)}
        pairs = (f"{name}={value}" for name, value in {**given, **options}.items() if value)
        servers.append(launch(kind, QUICK, "--auth-token=" + ",".join(("jwt", *pairs))))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("method", ["RS256", "PS384", "ES256", "ES384", "EdDSA", "HS512"])
async def test_a_json_web_token_says_who_and_at_which_auth_revision(jwt_server, method, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"a secret of at least sixty-four bytes, as it is wanted for HS512 tokens")
    options = {"priv-key": str(secret), "pub-key": ""} if method.startswith("HS") else {}
    server = jwt_server(method, **options)
    async with Client(server.target) as client:
        token = await Auth(client).enable_with_root()
        key = secret.read_bytes() if options else (tmp_path / "public.pem").read_bytes()
        claims = jwt.decode(token, key, algorithms=[method])
        assert claims["username"] == ROOT
        assert claims["revision"] == await Auth(client).revision()
        assert set(claims) == {"username", "revision", "exp"}
        client.metadata = (("token", token),)
        await client.put(b"k")


async def test_a_json_web_token_ends_with_the_next_change_of_auth(jwt_server):
    server = jwt_server()
    async with Client(server.target) as client:
        auth = Auth(client)
        await auth.user("alice", EVERYTHING)
        client.metadata = (("token", await auth.enable_with_root()),)
        async with logged_in(server, "alice") as alice:
            await alice.put(b"k")
            await auth.add_role("more")
            for request in (alice.put(b"k"), alice.get(b"k")):
                with refused(OLD):
                    await request
            async with alice.watch() as watch:
                reason = (await watch.create(b"k")).cancel_reason
                assert reason == f"rpc error: code = InvalidArgument desc = {OLD.text}"
        # Whoever has the role root is not asked for the revision where that alone counts.
        await auth.add_role("further")


async def test_a_json_web_token_ends_at_its_time(jwt_server, tmp_path):
    server = jwt_server(ttl="1h")
    key = (tmp_path / "private.pem").read_bytes()
    async with Client(server.target) as client:
        await Auth(client).enable_with_root()
        claims = {"username": ROOT, "revision": await Auth(client).revision()}
        for end, good in ((CLOCK_NEVER_ENDS, True), (1, False), (None, True)):
            expiry = {} if end is None else {"exp": end}
            token = jwt.encode({**claims, **expiry}, key, "RS256")
            async with bearing(server, token) as bearer:
                if good:
                    await bearer.put(b"k")
                else:
                    with refused(BAD_TOKEN):
                        await bearer.put(b"k")


async def test_a_json_web_token_has_to_have_its_claims_and_may_have_others(jwt_server, tmp_path):
    server = jwt_server()
    key = (tmp_path / "private.pem").read_bytes()
    who = {"username": ROOT, "revision": 100}
    bad: list[dict[str, Any]] = [
        {"revision": 100},
        {"username": 1, "revision": 100},
        {"username": ROOT},
        {"username": ROOT, "revision": "100"},
        {**who, "nbf": CLOCK_NEVER_ENDS},
    ]
    good: list[dict[str, Any]] = [
        who,
        {**who, "revision": 100.0},
        {**who, "iat": CLOCK_NEVER_ENDS},
        {**who, "aud": "x", "iss": "y", "sub": 1, "jti": 2},
    ]
    async with Client(server.target) as client:
        await Auth(client).enable_with_root()
        for claims in (*bad, *good):
            client.metadata = (("token", jwt.encode(claims, key, "RS256")),)
            if claims in good:
                await client.put(b"k")
            else:
                with refused(BAD_TOKEN):
                    await client.put(b"k")


async def test_a_json_web_token_that_is_signed_otherwise_is_refused(jwt_server, tmp_path):
    server = jwt_server()
    private = (tmp_path / "private.pem").read_bytes()
    async with Client(server.target) as client:
        await Auth(client).enable_with_root()
        keys: list[tuple[str, Any]] = [("none", None), ("HS256", b"x" * 32), ("RS512", private)]
        for method, key in keys:
            token = jwt.encode({"username": ROOT, "revision": 100}, key, method)
            client.metadata = (("token", token),)
            with refused(BAD_TOKEN):
                await client.put(b"k")


async def test_with_a_public_key_alone_tokens_come_from_elsewhere(jwt_server, tmp_path):
    server = jwt_server(**{"priv-key": ""})
    async with Client(server.target) as client:
        with refused(VERIFY_ONLY):
            await Auth(client).enable_with_root()
        private = (tmp_path / "private.pem").read_bytes()
        token = jwt.encode({"username": ROOT, "revision": 100}, private, "RS256")
        client.metadata = (("token", token),)
        await client.put(b"k")


# -- certificates --------------------------------------------------------------------------


@pytest.fixture
def tls_server(kind: str, launch: Callable[..., Server], tmp_path: Path) -> Any:
    """Give what starts a server with TLS, and an authority for its clients."""
    authority = Authority("byre test")
    cert, key = authority.issue(tmp_path, "server")
    servers: list[Server] = []

    def start(*flags: str) -> tuple[Server, Authority]:
        files = (
            f"--cert-file={cert}",
            f"--key-file={key}",
            f"--trusted-ca-file={authority.write(tmp_path)}",
        )
        listen = Listen.tcp(authority.credentials(tmp_path, "anybody"))
        servers.append(launch(kind, QUICK, *files, *flags, listen=listen))
        return servers[-1], authority

    yield start
    for server in servers:
        server.close()


async def enable(client: Client) -> str:
    """Add alice, who has no password, and enable auth."""
    auth = Auth(client)
    await auth.add_user("alice", no_password=True)
    await auth.add_role("alice", (READWRITE, b"a", b""))
    await auth.grant_role("alice", "alice")
    return await auth.enable_with_root()


async def test_a_certificate_says_who_calls_where_no_token_does(tls_server, tmp_path):
    server, authority = tls_server("--client-cert-auth")

    def as_(name: str) -> Client:
        return Client(server.target, credentials=authority.credentials(tmp_path, name))

    async with as_("alice") as alice, as_("stranger") as stranger:
        token = await enable(alice)
        await alice.put(b"a")
        with refused(DENIED):
            await alice.put(b"b")
        with refused(DENIED):
            await stranger.put(b"a")
        request = pb.AuthUserListRequest()
        with refused(Refusal(Code.FAILED_PRECONDITION, "etcdserver: user name not found")):
            await stranger.call("Auth/UserList", request, pb.AuthUserListResponse)
        stranger.metadata = (("token", token),)
        await stranger.put(b"b")


async def test_a_bad_token_counts_more_than_a_good_certificate(tls_server, tmp_path):
    server, authority = tls_server("--client-cert-auth")
    async with Client(
        server.target, credentials=authority.credentials(tmp_path, "alice")
    ) as alice:
        await enable(alice)
        alice.metadata = (("token", "x"),)
        with refused(BAD_TOKEN):
            await alice.put(b"a")


async def test_behind_the_gateway_a_certificate_says_nothing(tls_server, tmp_path):
    """The connection is the gateway's, and so is its certificate."""
    server, authority = tls_server("--client-cert-auth")
    async with Client(
        server.target, credentials=authority.credentials(tmp_path, "alice")
    ) as alice:
        await enable(alice)
        alice.metadata = (("grpcgateway-accept", "application/json"),)
        with refused(NOBODY):
            await alice.put(b"a")


async def test_a_certificate_counts_with_client_cert_auth_only(tls_server, tmp_path):
    server, authority = tls_server()
    async with Client(
        server.target, credentials=authority.credentials(tmp_path, "alice")
    ) as alice:
        await enable(alice)
        with refused(NOBODY):
            await alice.put(b"a")
