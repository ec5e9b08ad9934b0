"""What a MySQL or MariaDB server is and how it is set, as far as byre depends on it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

_READ = (
    "version", "max_allowed_packet", "log_bin", "sync_binlog", "binlog_format",
    "innodb_flush_log_at_trx_commit", "read_only", "innodb_read_only", "wsrep_on",
)  # fmt: skip
FACTS: Final = "SHOW SESSION VARIABLES WHERE Variable_name IN ({})".format(
    ", ".join(f"'{name}'" for name in _READ)
)
"""The statement whose rows `to_facts` understands; what a server does not have is left out."""

_VERSION = re.compile(r"(\d+)\.(\d+)")
_OLDEST = {"MariaDB": (10, 6), "MySQL": (8, 0)}
MIN_PACKET: Final = 4 << 20
"""The largest value of etcd, 1.5 MiB, may take twice as much in a statement."""


class Facts(NamedTuple):
    """A server's version and settings."""

    product: str
    version: tuple[int, int]
    max_packet: int
    """Bytes of the largest statement."""
    replica: bool
    """Whether it can only be read."""
    galera: bool
    early: bool
    """Whether commits are seen before they are on disk: InnoDB without binary log (log.md A7)."""
    weaknesses: tuple[str, ...]
    """Settings with which a commit that was confirmed may be lost."""
    refusals: tuple[str, ...]
    """Why byre cannot work with it, each with what to do."""


def to_facts(handshake: str, rows: Iterable[tuple[Any, ...]]) -> Facts:
    """Return the facts from the greeting of a server and the rows of `FACTS`."""
    found = {_text(name): _text(value).upper() for name, value in rows}
    product = "MariaDB" if "MariaDB" in handshake else "MySQL"
    numbers = _VERSION.search(found.get("version", ""))
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    packet = int(found.get("max_allowed_packet", MIN_PACKET))
    galera = found.get("wsrep_on") == "ON"
    logged = found.get("log_bin") == "ON"
    weaknesses = list(_weaknesses(found, logged=logged, galera=galera))
    return Facts(
        product,
        version,
        packet,
        replica=any(found.get(n, "OFF") not in {"OFF", "0"} for n in _READ[6:8]),
        galera=galera,
        early=not (logged or galera or weaknesses),
        weaknesses=tuple(weaknesses),
        refusals=tuple(_refusals(product, version, packet, found, logged=logged)),
    )


def _weaknesses(found: dict[str, str], *, logged: bool, galera: bool) -> Iterable[str]:
    if galera:  # durable by being on other nodes
        return
    if (flush := found.get("innodb_flush_log_at_trx_commit", "1")) not in {"1", "3"}:
        yield f"innodb_flush_log_at_trx_commit={flush}"
    if logged and (sync := found.get("sync_binlog", "1")) != "1":
        yield f"sync_binlog={sync}"


def _refusals(
    product: str, version: tuple[int, int], packet: int, found: dict[str, str], *, logged: bool
) -> Iterable[str]:
    oldest = _OLDEST[product]
    if version < oldest:
        yield (
            f"{product} {version[0]}.{version[1]} is too old: byre needs {oldest[0]}.{oldest[1]} "
            "or newer"
        )
    if packet < MIN_PACKET:
        yield f"max_allowed_packet={packet} is too small: set it to {MIN_PACKET} or more"
    if logged and found.get("binlog_format") == "STATEMENT":
        yield "binlog_format=STATEMENT does not go with READ COMMITTED: set it to ROW or MIXED"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
