"""TLS to a database server: what is verified, and every way in which it does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from datastore.dsn import Access, TlsMode
from datastore.dsn.password import PasswordCommand, PasswordFile
from datastore.shim.backends.api import NotReady
from datastore.shim.backends.registry import connect
from tests.support.certificates import Authority
from tests.support.databases import DatabaseServer, PostgresqlServer, database_on
from tests.support.mariadb import MariadbServer

STRICT_RULES = """
hostnossl all tls_only,with_cert 127.0.0.1/32 reject
hostssl all with_cert 127.0.0.1/32 cert
"""


@dataclass
class Protected:
    """A server with a certificate for 127.0.0.1, and the files of a client."""

    server: Any
    ca: Path
    cert: Path
    key: Path

    def url(self, database: str, user: str) -> str:
        return str(self.server.url(database, user))


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def protected(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Protected]:
    """Run a server whose user `tls_only` needs TLS and whose `with_cert` a certificate too."""
    server: Any = PostgresqlServer() if request.param == "postgresql" else MariadbServer()
    authority = Authority("database")
    client_dir = tmp_path_factory.mktemp("client")
    ca = authority.write(server.directory)
    cert, key = authority.issue(server.directory, "server")
    for file in (ca, cert, key):
        file.chmod(0o600)
        server.account.own_file(file)
    with closing(server):
        if request.param == "postgresql":
            server.settings |= {"ssl": "on", "ssl_ca_file": str(ca)}
            server.settings |= {"ssl_cert_file": str(cert), "ssl_key_file": str(key)}
            rules = server.data / "pg_hba.conf"
            rules.write_text(STRICT_RULES + rules.read_text())
            server.start()
            server.execute("CREATE ROLE tls_only LOGIN CREATEDB")
            server.execute("CREATE ROLE with_cert LOGIN CREATEDB")
        else:
            server.settings |= {"ssl-ca": str(ca), "ssl-cert": str(cert), "ssl-key": str(key)}
            server.start()
            for user, needs in (("tls_only", "SSL"), ("with_cert", "X509")):
                server.execute(f"CREATE USER {user}@'127.0.0.1' REQUIRE {needs}")
                server.execute(f"GRANT ALL ON *.* TO {user}@'127.0.0.1'")
        client = authority.issue(client_dir, "with_cert")
        client[1].chmod(0o600)
        yield Protected(server, authority.write(client_dir), *client)


@pytest.fixture
def database(protected: Protected) -> Iterator[str]:
    """A database that does not exist yet."""
    with database_on(protected.server) as name:
        yield name


def opens(url: str, access: Access) -> None:
    with closing(connect(url, access)) as backend:
        assert backend.open().revision == 1


def refused(url: str, access: Access) -> str:
    with closing(connect(url, access)) as backend, pytest.raises(NotReady) as caught:
        backend.open()
    return str(caught.value).lower()


def test_a_certificate_of_the_trusted_authority_is_accepted(
    protected: Protected, database: str
) -> None:
    opens(protected.url(database, "tls_only"), Access(ca=protected.ca))


def test_a_client_certificate_is_shown(protected: Protected, database: str) -> None:
    access = Access(ca=protected.ca, cert=protected.cert, key=protected.key)
    opens(protected.url(database, "with_cert"), access)
    refused(protected.url(database, "with_cert"), Access(ca=protected.ca))


def test_a_server_that_wants_tls_refuses_plain_text(protected: Protected, database: str) -> None:
    url = protected.url(database, "tls_only")
    refused(url, Access(tls_mode=TlsMode.DISABLE))
    opens(url, Access(tls_mode=TlsMode.PREFER))
    opens(url, Access(tls_mode=TlsMode.REQUIRE))


def test_another_authority_is_not_trusted(
    protected: Protected, database: str, tmp_path: Path
) -> None:
    other = Authority("other").write(tmp_path)
    told = refused(protected.url(database, "tls_only"), Access(ca=other))
    assert "certificate verify failed" in told
    told = refused(protected.url(database, "tls_only"), Access(tls_mode=TlsMode.VERIFY_FULL))
    assert "certificate verify failed" in told


def test_the_name_is_verified_unless_asked_not_to(protected: Protected, database: str) -> None:
    url = protected.url(database, "tls_only").replace("127.0.0.1", "localhost")
    assert "connect by a name that the server's certificate has" in refused(
        url, Access(ca=protected.ca)
    )
    opens(url, Access(ca=protected.ca, tls_mode=TlsMode.VERIFY_CA))


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_server_without_tls_is_refused_where_it_is_required(
    kind: str, servers: Callable[[str], DatabaseServer]
) -> None:
    server = servers(kind)
    with database_on(server) as database:
        told = refused(server.url(database), Access(tls_mode=TlsMode.REQUIRE))
        assert "set the tls mode to prefer or disable, or set up tls on the server" in told


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_password_that_rotates_is_read_again(
    kind: str, servers: Callable[[str], Any], tmp_path: Path
) -> None:
    server = servers(kind)
    file = tmp_path / "password"
    script = tmp_path / "command"
    script.write_text(f"#!/bin/sh\ncat {file}\n")
    script.chmod(0o700)
    user = f"rotating_{os.getpid()}"
    if kind == "mariadb":
        server.execute(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'one'")
        server.execute(f"GRANT ALL ON *.* TO {user}@'127.0.0.1'")
        change = f"SET PASSWORD FOR {user}@'127.0.0.1' = PASSWORD('two')"
    else:
        server.execute(f"CREATE ROLE {user} LOGIN CREATEDB PASSWORD 'one'")
        rules = server.data / "pg_hba.conf"
        rules.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        server.execute("SELECT pg_reload_conf()")
        change = f"ALTER ROLE {user} PASSWORD 'two'"
    with database_on(server) as database:
        url = server.url(database, user)
        for source in (PasswordFile(file), PasswordCommand((str(script),))):
            file.write_text("one\n")
            opens(url, Access(password=source))
        server.execute(change)
        assert "correct the password" in refused(url, Access(password=PasswordFile(file)))
        file.write_text("two\n")
        for source in (PasswordFile(file), PasswordCommand((str(script),))):
            opens(url, Access(password=source))
