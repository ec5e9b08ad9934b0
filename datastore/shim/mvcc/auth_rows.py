"""The auth state as the rows that a backend stores.

    (0, b"")     the switch: 1 byte, 1 when enabled; the auth revision: 8 bytes, the higher ones
                 first; then the secret that signs tokens
    (1, name)    authpb.User
    (2, name)    authpb.Role

Users and roles are byte for byte what etcd keeps in its buckets, so that a snapshot copies them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from datastore.shim.mvcc.auth import Auth, Permission, User
from datastore.shim.mvcc.wire import frame, read_varint, varint

SWITCH: Final = 0
USER: Final = 1
ROLE: Final = 2

_REVISION_BYTES: Final = 8
_LENGTH_DELIMITED: Final = 2


def encode(auth: Auth) -> dict[tuple[int, bytes], bytes]:
    """Return all rows of a state."""
    switch = bytes((auth.enabled,)) + auth.revision.to_bytes(_REVISION_BYTES) + auth.secret
    rows = {(SWITCH, b""): switch}
    for name, user in auth.users.items():
        rows[USER, name.encode()] = _encode_user(name.encode(), user)
    for name, permissions in auth.roles.items():
        rows[ROLE, name.encode()] = _encode_role(name.encode(), permissions)
    return rows


def decode(rows: Mapping[tuple[int, bytes], bytes]) -> Auth:
    """Return the state that rows hold; none at all is the state of a new store.

    Raises:
        ValueError: a row is damaged.
    """
    switch = rows.get((SWITCH, b""))
    if switch is None:
        return Auth()
    try:
        return Auth(
            enabled=switch[0] == 1,
            revision=int.from_bytes(switch[1 : 1 + _REVISION_BYTES]),
            secret=switch[1 + _REVISION_BYTES :],
            users={n.decode(): _decode_user(b) for (k, n), b in sorted(rows.items()) if k == USER},
            roles={n.decode(): _decode_role(b) for (k, n), b in sorted(rows.items()) if k == ROLE},
        )
    except IndexError as error:
        raise ValueError("a stored user or role is damaged") from error


def _encode_user(name: bytes, user: User) -> bytes:
    parts = [frame(b"\x0a", name)]
    if user.password:
        parts.append(frame(b"\x12", user.password))
    parts += [frame(b"\x1a", role.encode()) for role in user.roles]
    parts.append(frame(b"\x22", b"\x08\x01" if user.no_password else b""))
    return b"".join(parts)


def _decode_user(body: bytes) -> User:
    password, roles, options = b"", [], b""
    for field, value in _fields(body):
        if field == 2:
            password = _as_bytes(value)
        elif field == 3:
            roles.append(_as_bytes(value).decode())
        elif field == 4:
            options = _as_bytes(value)
    return User(password, tuple(roles), dict(_fields(options)).get(1) == 1)


def _encode_role(name: bytes, permissions: Sequence[Permission]) -> bytes:
    return frame(b"\x0a", name) + b"".join(
        frame(b"\x12", _encode_permission(permission)) for permission in permissions
    )


def _encode_permission(permission: Permission) -> bytes:
    parts = [b"\x08" + varint(permission.access)] if permission.access else []
    if permission.key:
        parts.append(frame(b"\x12", permission.key))
    if permission.end:
        parts.append(frame(b"\x1a", permission.end))
    return b"".join(parts)


def _decode_role(body: bytes) -> tuple[Permission, ...]:
    return tuple(
        _decode_permission(_as_bytes(value)) for field, value in _fields(body) if field == 2
    )


def _decode_permission(body: bytes) -> Permission:
    fields = dict(_fields(body))
    access = fields.get(1, 0)
    if not isinstance(access, int):
        raise IndexError("a permission without its type")
    signed = access - (1 << 64) if access >> 63 else access
    return Permission(signed, _as_bytes(fields.get(2, b"")), _as_bytes(fields.get(3, b"")))


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise IndexError("a number where text belongs")
    return value


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Give the fields of a message: numbers as they are, the rest as bytes."""
    at = 0
    while at < len(body):
        tag, at = read_varint(body, at)
        number, at = read_varint(body, at)
        if tag & 7 == _LENGTH_DELIMITED:
            if at + number > len(body):
                raise IndexError("a field that is cut off")
            yield tag >> 3, body[at : at + number]
            at += number
        elif tag & 7 == 0:
            yield tag >> 3, number
        else:
            raise IndexError("a field of a type that no message has")
