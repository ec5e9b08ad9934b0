"""Data sources of database servers: every form that people have, and every mistake."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import given, strategies

from datastore.dsn import Access, Dsn, Host, Target, Tls, TlsMode, to_target
from datastore.dsn.password import (
    FixedPassword,
    PasswordCommand,
    PasswordFile,
    PasswordVariable,
)
from datastore.errors import PasswordUnavailable, UnusableDsn

SOCKETS = "/var/run/postgresql"


class Meant(NamedTuple):
    """What a data source means, in a line."""

    hosts: str
    database: str = "kubernetes"
    user: str = ""
    password: str | None = None


def meaning(target: Target) -> Meant:
    password = target.password.get() if target.password else None
    hosts = " ".join(f"{host.name}|{host.port}" for host in target.hosts)
    return Meant(hosts, target.database, target.user, password)


POSTGRESQL = {
    "postgresql://": Meant(f"{SOCKETS}|5432"),
    "postgres://h": Meant("h|5432"),
    "postgres://h/": Meant("h|5432"),
    "postgres://u@h/d": Meant("h|5432", "d", "u"),
    "postgres://u:p@h:1/d": Meant("h|1", "d", "u", "p"),
    "POSTGRES://u:p@h:1/d": Meant("h|1", "d", "u", "p"),
    "postgresql+psycopg://u:p@h/d": Meant("h|5432", "d", "u", "p"),
    "postgresql+psycopg2://u:p@h/d": Meant("h|5432", "d", "u", "p"),
    "postgresql://u:p%40%2F%3Aw@h/d%20e": Meant("h|5432", "d e", "u", "p@/:w"),
    "postgresql://u:p@w@h/d": Meant("h|5432", "d", "u", "p@w"),
    "postgresql://u:@h/d": Meant("h|5432", "d", "u"),
    "postgresql://[::1]/d": Meant("::1|5432", "d"),
    "postgresql://[2001:db8::1]:6000,h2/d": Meant("2001:db8::1|6000 h2|5432", "d"),
    "postgresql://[fe80::1%25eth0]/d": Meant("fe80::1%eth0|5432", "d"),
    "postgresql://h1:1,h2:2,h3/d": Meant("h1|1 h2|2 h3|5432", "d"),
    "postgresql:///d": Meant(f"{SOCKETS}|5432", "d"),
    "postgresql:///d?host=/tmp/x": Meant("/tmp/x|5432", "d"),
    "postgresql:///d?host=/tmp/x&port=6000": Meant("/tmp/x|6000", "d"),
    "postgresql://%2Ftmp%2Fx/d": Meant("/tmp/x|5432", "d"),
    "postgresql://%2Ftmp%2Fx:6000/d": Meant("/tmp/x|6000", "d"),
    "postgresql://:6000/d": Meant(f"{SOCKETS}|6000", "d"),
    "postgresql://h/?dbname=d&user=u&password=p": Meant("h|5432", "d", "u", "p"),
    "postgresql:///d?host=h1,h2&port=1,2": Meant("h1|1 h2|2", "d"),
    "postgresql:///d?host=h1,h2&port=1": Meant("h1|1 h2|1", "d"),
    "postgresql:///d?host=::1": Meant("::1|5432", "d"),
    "postgresql+psycopg://u@/d?host=h1:1&host=h2:2": Meant("h1|1 h2|2", "d", "u"),
    "postgresql:///d?hostaddr=10.0.0.1": Meant("10.0.0.1|5432", "d"),
    "postgres://u:p@h/d?pool_max_conns=4&timezone=UTC": Meant("h|5432", "d", "u", "p"),
}

MYSQL = {
    "mysql://": Meant("127.0.0.1|3306"),
    "mysql://u:p@tcp(h:1)/d": Meant("h|1", "d", "u", "p"),
    "mysql://u:p@tcp(h)/d": Meant("h|3306", "d", "u", "p"),
    "mysql://u:p@tcp(h:1)/": Meant("h|1", user="u", password="p"),
    "mysql://u:p@tcp(h:1)": Meant("h|1", user="u", password="p"),
    "mysql://tcp(h:1)/d": Meant("h|1", "d"),
    "mysql://u@tcp([::1]:1)/d": Meant("::1|1", "d", "u"),
    "mysql://u@tcp6([::1])/d": Meant("::1|3306", "d", "u"),
    "mysql://root@unix(/run/my.sock)/d": Meant("/run/my.sock|3306", "d", "root"),
    "mysql://u:p/@:?w%41@tcp(h:1)/d": Meant("h|1", "d", "u", "p/@:?w%41"),
    "mysql://u:@tcp(a)b@tcp(h)/d": Meant("h|3306", "d", "u", "@tcp(a)b"),
    "mysql://u:p@tcp(h)/d%20e?parseTime=true&charset=utf8mb4": Meant("h|3306", "d e", "u", "p"),
    "mysql://u:p@h:1/d": Meant("h|1", "d", "u", "p"),
    "mariadb://u:p%40w@h/d": Meant("h|3306", "d", "u", "p@w"),
    "mysql+pymysql://u:p@h/d?charset=utf8mb4": Meant("h|3306", "d", "u", "p"),
    "mariadb+mysqldb://u@/d?unix_socket=/run/my.sock": Meant("/run/my.sock|3306", "d", "u"),
    "mysql://u@localhost/d?socket=/run/my.sock": Meant("/run/my.sock|3306", "d", "u"),
    "mysql://h1:1,h2/d": Meant("h1|1 h2|3306", "d"),
    "mysql://u@[::1]:1/d": Meant("::1|1", "d", "u"),
}


@pytest.mark.parametrize(("text", "meant"), [*POSTGRESQL.items(), *MYSQL.items()])
def test_forms(text: str, meant: Meant) -> None:
    target = to_target(Dsn(text))
    assert meaning(target) == meant
    assert target.driver == ("postgresql" if text.lower().startswith("postgres") else "mysql")


UNUSABLE = {
    "oracle://h/d": "is not a database server; known: postgres, postgresql, mysql, mariadb",
    "postgresql+odbc://h/d": "does not know the driver odbc; write postgresql://",
    "mysql+odbc://h/d": "does not know the driver odbc; write mysql://",
    "postgres://h:0/d": "a port must be a number from 1 to 65535",
    "postgres://h:65536/d": "a port must be a number from 1 to 65535",
    "postgres://h:x/d": "a port must be a number",
    "postgres://::1/d": "an IPv6 address must be written as [::1]",
    "postgres://[::1/d": "an IPv6 address must be written as [::1]",
    "postgres://u:<secret/>@h/d": "must be written as %2F or %3F",
    "postgres://u:<secret?>@h/d": "must be written as %2F or %3F",
    "postgres://u:<secret%>@h/d": "a percent sign must be written as %25",
    "postgres://u:<secret%00>@h/d": "must not hold %00",
    "postgres://u:<secret%ff>@h/d": "percent-encoded bytes must be UTF-8",
    "postgres://h/d?sslmod=require": "unknown parameter sslmod; did you mean sslmode?",
    "postgres://h/d?xyzzy=1": "unknown parameter xyzzy; leave it out",
    "postgres://h/d?sslmode=on": "sslmode must be one of disable, allow, prefer",
    "postgres://h/d?target_session_attrs=standby": "target_session_attrs must be one of any, read",
    "postgres://h/d?connect_timeout=soon": "connect_timeout must be seconds, such as 5",
    "postgres://h/d?replication=1": "a replication connection cannot hold a store",
    "postgres://h/d?service=x": "a service file is not read",
    "postgres://h/d?user=a&user=b": "the parameter user is given twice",
    "postgres://h1,h2/d?port=1,2,3": "port names 3 ports for 2 hosts",
    "postgres://h/d?sslrootcert=ca.pem": "the CA file must be an absolute path",
    "postgres://h/d?sslcert=/c": "a client certificate and its key must be given together",
    "postgres://h/d?sslmode=disable&sslrootcert=/c": "TLS is disabled; leave out one of them",
    "mysql://u:<secret>@pipe(x)/d": "the network must be tcp(host:port) or unix(/path)",
    "mysql://u@unix(x)/d": "unix() must hold an absolute path",
    "mysql://u@tcp(h:x)/d": "a port must be a number",
    "mysql://h/d?tls=custom": "tls must be one of true, false, skip-verify",
    "mysql://h/d?port=x": "a port must be a number",
    "mysql://h/d?ssl_verify_cert=maybe": "sslverifycert must be one of true",
    "mysql://h/d?allowOldPasswords=true": "unknown parameter allowOldPasswords",
    "mysql://h/d?parsTime=true": "unknown parameter parsTime; did you mean parseTime?",
}


@pytest.mark.parametrize(("text", "told"), UNUSABLE.items())
def test_mistakes_are_told_without_the_password(text: str, told: str) -> None:
    with pytest.raises(UnusableDsn, match=re.escape(told)) as caught:
        to_target(Dsn(text))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


CA = Path("/ca")
TLS = {
    "postgres://h/d": Tls(TlsMode.PREFER),
    "postgres://h/d?sslmode=require": Tls(TlsMode.REQUIRE),
    "postgres://h/d?ssl=true": Tls(TlsMode.REQUIRE),
    "postgres://h/d?sslmode=verify-full": Tls(TlsMode.VERIFY_FULL),
    "postgres://h/d?sslrootcert=system": Tls(TlsMode.VERIFY_FULL),
    "postgres://h/d?sslrootcert=/ca": Tls(TlsMode.VERIFY_FULL, CA),
    "postgres://h/d?sslmode=require&sslrootcert=/ca": Tls(TlsMode.VERIFY_FULL, CA),
    "postgres://h/d?sslmode=verify-ca&sslrootcert=/ca": Tls(TlsMode.VERIFY_CA, CA),
    "postgres://h/d?sslcert=/c&sslkey=/k": Tls(TlsMode.REQUIRE, None, Path("/c"), Path("/k")),
    "mysql://h/d": Tls(TlsMode.PREFER),
    "mysql://tcp(h)/d?tls=true": Tls(TlsMode.VERIFY_FULL),
    "mysql://tcp(h)/d?tls=skip-verify": Tls(TlsMode.REQUIRE),
    "mysql://tcp(h)/d?tls=preferred": Tls(TlsMode.PREFER),
    "mysql://tcp(h)/d?tls=false": Tls(TlsMode.DISABLE),
    "mysql://h/d?ssl-mode=REQUIRED": Tls(TlsMode.REQUIRE),
    "mysql://h/d?sslMode=VERIFY_IDENTITY": Tls(TlsMode.VERIFY_FULL),
    "mysql://h/d?ssl=true": Tls(TlsMode.REQUIRE),
    "mysql://h/d?ssl_ca=/ca": Tls(TlsMode.VERIFY_FULL, CA),
    "mysql://h/d?ssl-ca=/ca&ssl_verify_cert=true": Tls(TlsMode.VERIFY_CA, CA),
    "mysql://h/d?ssl_disabled=true": Tls(TlsMode.DISABLE),
    "mysql://h/d?ssl_ca=/ca&serverName=db": Tls(TlsMode.VERIFY_FULL, CA, server_name="db"),
}


@pytest.mark.parametrize(("text", "tls"), TLS.items())
def test_tls(text: str, tls: Tls) -> None:
    assert to_target(Dsn(text)).tls == tls


def test_several_hosts_are_asked_for_the_one_that_can_be_written_to() -> None:
    assert to_target(Dsn("postgres://h/d")).session_attrs == ""
    assert to_target(Dsn("postgres://h,i/d")).session_attrs == "read-write"
    primary = "postgres://h,i/d?target_session_attrs=primary"
    assert to_target(Dsn(primary)).session_attrs == "primary"


def test_other_parameters_of_libpq_go_to_the_driver() -> None:
    target = to_target(
        Dsn(
            "postgres://h/d?application_name=a%20b&connect_timeout=3&search_path=s,public"
            "&options=-c%20geqo%3Doff&keepalives_idle=9&channel_binding=require"
        )
    )
    assert target.connect_seconds == 3
    assert target.schema == "s"
    assert target.options == {
        "application_name": "a b",
        "options": "-c geqo=off",
        "keepalives_idle": "9",
        "channel_binding": "require",
    }


class TestAccess:
    def test_it_completes_the_data_source(self) -> None:
        access = Access("a_", "s", CA, Path("/c"), Path("/k"), password=FixedPassword("p"))
        target = to_target(Dsn("postgres://u@h/d"), access)
        assert target.tls == Tls(TlsMode.VERIFY_FULL, CA, Path("/c"), Path("/k"))
        assert (target.prefix, target.schema) == ("a_", "s")
        assert meaning(target).password == "p"

    def test_a_mode_that_verifies_less_is_a_choice_without_an_authority_only(self) -> None:
        def mode(mode: TlsMode | None, ca: Path | None) -> TlsMode:
            return to_target(Dsn("mysql://h/d"), Access(tls_mode=mode, ca=ca)).tls.mode

        assert mode(TlsMode.REQUIRE, None) is TlsMode.REQUIRE
        assert mode(TlsMode.VERIFY_CA, CA) is TlsMode.VERIFY_CA
        assert mode(TlsMode.REQUIRE, CA) is TlsMode.VERIFY_FULL

    def test_what_is_listened_on_has_the_same_access(self) -> None:
        access = Access(password=FixedPassword("p"), listen=Dsn("postgres://u@direct:1/d"))
        listen = to_target(Dsn("postgres://u@pooler/d"), access).listen
        assert listen
        assert meaning(listen) == Meant("direct|1", "d", "u", "p")

    @pytest.mark.parametrize(
        ("text", "access", "told"),
        [
            ("postgres://u:secret@h/d", Access(password=FixedPassword("secret")), "given twice"),
            ("postgres://h/d?sslrootcert=/a", Access(ca=CA), "the CA is given twice"),
            ("postgres://h/d?search_path=a", Access(schema="b"), "the schema is given twice"),
            ("mysql://h/d", Access(schema="b"), "a schema is for PostgreSQL"),
            ("mysql://h/d", Access(listen=Dsn("postgres://h/d")), "is for PostgreSQL"),
            ("postgres://h/d", Access(listen=Dsn("mysql://h/d")), "must be a PostgreSQL"),
            ("postgres://h/d", Access(prefix="A"), "small letters"),
            ("postgres://h/d", Access(schema="s" * 64), "at most 63 bytes"),
            ("postgres://h/d", Access(cert=CA), "must be given together"),
            ("mysql://h/d?tls=false", Access(ca=CA), "TLS is disabled"),
        ],
    )
    def test_contradictions(self, text: str, access: Access, told: str) -> None:
        with pytest.raises(UnusableDsn, match=told) as caught:
            to_target(Dsn(text), access)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "is_weak"),
    [
        ("postgres://db.example.com/d", True),
        ("postgres://10.0.0.1/d?sslmode=require", True),
        ("postgres://localhost,10.0.0.1/d", True),
        ("postgres://10.0.0.1/d?sslmode=verify-full", False),
        ("mysql://10.0.0.1/d?ssl_ca=/ca", False),
        ("postgres://localhost/d", False),
        ("postgres://127.0.0.2/d", False),
        ("postgres://[::1]/d", False),
        ("postgres:///d", False),
        ("mysql://unix(/run/my.sock)/d", False),
    ],
)
def test_a_remote_server_that_proves_nothing_is_a_weakness(text: str, is_weak: bool) -> None:
    assert bool(to_target(Dsn(text)).weakness) is is_weak


def test_the_place_and_the_repr_show_no_secret() -> None:
    target = to_target(Dsn("postgres://u:secret@[::1]:1,h/d?sslpassword=secret"))
    assert target.place == "[::1]:1, h:5432, database d"
    assert "secret" not in repr(target)


class TestPasswords:
    def test_a_file_is_read_each_time(self, tmp_path: Path) -> None:
        file = tmp_path / "password"
        password = PasswordFile(file)
        for text in ("one\n", "two", "three\r\n"):
            file.write_bytes(text.encode())
            assert password.get() == text.strip()

    def test_a_command_is_run_each_time_and_its_arguments_are_not_shown(
        self, tmp_path: Path
    ) -> None:
        script = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); print(p.read_text())"
        (tmp_path / "x").write_text("secret")
        password = PasswordCommand((sys.executable, "-c", script, str(tmp_path / "x")))
        assert password.get() == "secret\n".strip()
        (tmp_path / "x").unlink()
        with pytest.raises(PasswordUnavailable, match=r"ended with status 1; run it by hand"):
            password.get()

    @pytest.mark.parametrize(
        ("argv", "told"),
        [
            (("/nowhere",), r"the password command /nowhere: no such file"),
            (("true",), r"it printed nothing"),
            (("printf", r"\377"), r"not UTF-8 text"),
        ],
    )
    def test_a_command_that_gives_none_is_told(self, argv: tuple[str, ...], told: str) -> None:
        with pytest.raises(PasswordUnavailable, match=told):
            PasswordCommand(argv).get()

    def test_a_file_that_gives_none_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(PasswordUnavailable, match="no such file"):
            PasswordFile(tmp_path / "x").get()
        (tmp_path / "x").write_text("\n")
        with pytest.raises(PasswordUnavailable, match="it is empty"):
            PasswordFile(tmp_path / "x").get()
        (tmp_path / "x").write_bytes(b"\xff")
        with pytest.raises(PasswordUnavailable, match="not UTF-8 text"):
            PasswordFile(tmp_path / "x").get()

    def test_a_variable_that_is_not_set_is_told(self) -> None:
        assert PasswordVariable("PW", "p").get() == "p"
        with pytest.raises(PasswordUnavailable, match="environment variable PW is not set"):
            PasswordVariable("PW").get()

    def test_none_shows_itself(self) -> None:
        shown = f"{FixedPassword('secret')!r} {PasswordVariable('PW', 'secret')!r}"
        assert "secret" not in shown


TEXT = strategies.text(strategies.characters(exclude_characters="\0", codec="utf-8"), min_size=1)
NAME = strategies.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True)
PLACES = strategies.lists(
    strategies.tuples(
        NAME | strategies.ip_addresses().map(str),
        strategies.integers(1, 65535) | strategies.none(),
    ),
    min_size=1,
    max_size=4,
)


def write_place(name: str, port: int | None) -> str:
    host = f"[{name}]" if ":" in name else name
    return host if port is None else f"{host}:{port}"


@given(strategies.sampled_from([("postgresql", 5432), ("mysql", 3306)]), PLACES, TEXT, TEXT, TEXT)
def test_what_is_written_as_a_url_is_read_back(
    kind: tuple[str, int],
    places: list[tuple[str, int | None]],
    user: str,
    password: str,
    database: str,
) -> None:
    scheme, port = kind
    authority = ",".join(write_place(*place) for place in places)
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
    dsn = Dsn(f"{scheme}://{credentials}@{authority}/{quote(database, safe='')}")
    target = to_target(dsn)
    assert target.hosts == tuple(Host(name, given or port) for name, given in places)
    assert (target.user, target.database) == (user, database)
    assert target.password
    assert target.password.get() == password


@given(TEXT, TEXT, NAME, strategies.integers(1, 65535))
def test_what_is_written_as_go_does_is_read_back(
    password: str, database: str, name: str, port: int
) -> None:
    text = f"mysql://user:{password}@tcp({name}:{port})/{quote(database, safe='')}?parseTime=true"
    target = to_target(Dsn(text))
    assert meaning(target) == Meant(f"{name}|{port}", database, "user", password)


@given(TEXT)
def test_no_text_is_more_than_a_refusal(text: str) -> None:
    for scheme in ("postgresql", "mysql"):
        with contextlib.suppress(UnusableDsn):
            to_target(Dsn(f"{scheme}://{text}"))
