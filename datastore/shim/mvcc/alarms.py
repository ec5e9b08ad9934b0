"""What active alarms refuse (etcd: apply/capped.go, apply/corrupt.go)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from datastore.shim.backends.api import Alarm
from datastore.shim.errors import CorruptStore, NoSpace
from datastore.shim.mvcc.auth_ops import AuthWrite
from datastore.shim.mvcc.ops import LeaseGrant, Put, SetAlarm, Txn, Write
from datastore.shim.mvcc.txn import has_put

NOSPACE: Final = 1
CORRUPT: Final = 2


def check_alarms(alarms: Iterable[Alarm], write: Write) -> None:
    """Refuse a write that an alarm forbids.

    Raises:
        CorruptStore, NoSpace: Which of the two it is.
    """
    kinds = {alarm.kind for alarm in alarms}
    if CORRUPT in kinds and not isinstance(write, SetAlarm | AuthWrite):
        raise CorruptStore
    if NOSPACE in kinds and (
        isinstance(write, Put | LeaseGrant) or (isinstance(write, Txn) and has_put(write))
    ):
        raise NoSpace
