"""The header fields of a request, checked once and remembered for as long as they repeat."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final

from datastore.shim.transport.api import Code, RpcError, Stream, Unary
from datastore.shim.transport.http2 import status, timeout
from datastore.shim.transport.http2.hpack import Decoder, Field

_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_REQUIRED: Final = frozenset({b":method", b":scheme", b":path"})
_CONNECTION: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_HIDDEN: Final = frozenset({b"te", b"content-type", b"grpc-timeout"})
_GRPC: Final = b"application/grpc"
_TIMEOUT: Final = b"grpc-timeout"
_IDENTITY: Final = b"identity"
_UPPER: Final = frozenset(range(0x41, 0x5B))
_BAD_NAME: Final = frozenset(range(0x21)) | frozenset(range(0x7F, 0x100)) | _UPPER
_BAD_VALUE: Final = frozenset(b"\x00\r\n")
_LONGEST_LENGTH: Final = 18
_KEPT: Final = 64
_KEPT_BLOCK_SIZE: Final = 1024


class Malformed(Exception):
    """The fields are no HTTP/2 request (RFC 9113 section 8)."""


class Head:
    """A request's fields without its timeout; shared by all requests that repeat them.

    Attributes:
        unary: What serves it, or None; then it is `stream`, or a refusal.
        direct: The same, for a request that may be served as soon as its message is there.
        content_length: Bytes of all DATA, which gRPC clients do not tell; -1 is unknown.
        http_status: Above 0, it is answered without gRPC.
        refusal: The status it is answered with, or None.
        plain: It is not gRPC, and `stream` serves it all the same.
    """

    __slots__ = (
        "_metadata", "content_length", "direct", "fields", "gzip", "http_status", "path",
        "plain", "refusal", "size", "stream", "unary",
    )  # fmt: skip

    def __init__(self, fields: Sequence[Field], path: str) -> None:
        self.fields = fields
        self.path = path
        self.unary: Unary | None = None
        self.direct: Unary | None = None
        self.content_length = -1
        self.stream: Stream | None = None
        self.http_status = 0
        self.plain = False
        self.refusal: RpcError | None = None
        self.gzip = False
        self.size = sum(len(name) + len(value) for name, value in fields)
        self._metadata: Mapping[str, Sequence[str | bytes]] | None = None

    @property
    def is_served(self) -> bool:
        """Whether there is a handler for it."""
        return self.unary is not None or self.stream is not None

    @property
    def metadata(self) -> Mapping[str, Sequence[str | bytes]]:
        """What the caller added to the request, and a few fields of its library."""
        if self._metadata is None:
            found: dict[str, list[str | bytes]] = {}
            for name, value in self.fields:
                if name not in _HIDDEN and name not in _PSEUDO:
                    found.setdefault(name.decode("latin-1"), []).extend(_to_values(name, value))
            self._metadata = found
        return self._metadata


Request = tuple[Head, float | None]
"""A head and the timeout in seconds, which seldom repeats."""


class Methods:
    """What is served, by path."""

    def __init__(self) -> None:
        self.unary: dict[str, Unary] = {}
        self.stream: dict[str, Stream] = {}
        self.plain: Stream | None = None
        """What serves requests that are not gRPC."""

    def resolve(self, head: Head) -> None:
        """Find who serves a request, or how an unknown method is refused: in grpc-go's words."""
        head.unary = self.unary.get(head.path)
        head.direct = head.unary if head.content_length < 0 else None
        head.stream = self.stream.get(head.path)
        if head.unary is not None or head.stream is not None:
            return
        service, _, method = head.path.removeprefix("/").rpartition("/")
        text = f"unknown service {service}"
        if any(known.startswith(f"/{service}/") for known in (*self.unary, *self.stream)):
            text = f"unknown method {method} for service {service}"
        head.refusal = RpcError(Code.UNIMPLEMENTED, text)


class HeadReader:
    """Turns header blocks of one connection into requests."""

    __slots__ = ("_blocks", "_generation", "_heads", "_methods", "_timeout_at", "decoder")

    def __init__(self, methods: Methods) -> None:
        self.decoder = Decoder()
        self._methods = methods
        # A block means the same for as long as the decoder's table does not change.
        self._blocks: dict[bytes, Request] = {}
        self._generation = 0
        self._heads: dict[tuple[Field, ...], Head] = {}
        # Where the timeout was last among the fields: clients keep their order.
        self._timeout_at = 0

    def read(self, block: bytes) -> Request:
        """Return the request. Hot.

        Raises:
            HpackError: the block cannot be decoded.
            Malformed: it is no request.
        """
        decoder, blocks = self.decoder, self._blocks
        generation = decoder.generation
        if generation != self._generation:
            self._generation = generation
            blocks.clear()
        known = blocks.get(block)
        if known is not None:
            return known
        request = self._parse(decoder.decode(block))
        # A block that changes the table means something else when it comes again.
        if decoder.generation == generation and len(block) <= _KEPT_BLOCK_SIZE:
            if len(blocks) >= _KEPT:
                blocks.clear()
            blocks[block] = request
        return request

    def _parse(self, fields: list[Field]) -> Request:
        at = self._timeout_at
        if at >= len(fields) or fields[at][0] != _TIMEOUT:
            at = next((n for n, field in enumerate(fields) if field[0] == _TIMEOUT), -1)
            if at < 0:
                return self._find(tuple(fields)), None
            self._timeout_at = at
        rest = (*fields[:at], *fields[at + 1 :])
        try:
            return self._find(rest), timeout.parse(fields[at][1])
        except timeout.BadTimeout:
            return _refused(rest, "malformed grpc-timeout"), None

    def _find(self, fields: tuple[Field, ...]) -> Head:
        head = self._heads.get(fields)
        if head is None:
            head = check(fields)
            if head.http_status == 415 and self._methods.plain is not None:
                head.http_status, head.plain = 0, True
                head.stream = self._methods.plain
            elif not head.http_status and head.refusal is None:
                self._methods.resolve(head)
            if head.size <= _KEPT_BLOCK_SIZE:
                if len(self._heads) >= _KEPT:
                    self._heads.clear()
                self._heads[fields] = head
        return head


def check(fields: Sequence[Field]) -> Head:
    """Return the head of a request whose method is still to be resolved.

    Raises:
        Malformed: the fields break HTTP/2's rules. Any ``:authority`` is taken: clients of etcd
            have sent lists of endpoints and paths of sockets.
    """
    pseudo: dict[bytes, bytes] = {}
    plain: dict[bytes, bytes] = {}
    for name, value in fields:
        if not name.startswith(b":"):
            _check_field(name, value)
            plain[name] = value
        elif plain or name not in _PSEUDO or name in pseudo:
            raise Malformed(f"pseudo-header {name!r} is unknown, repeated or late")
        else:
            pseudo[name] = value
    if not pseudo.keys() >= _REQUIRED or not pseudo[b":path"]:
        raise Malformed("a pseudo-header is missing")
    head = Head(fields, pseudo[b":path"].decode("latin-1"))
    if b"content-length" in plain:
        head.content_length = _to_length(plain[b"content-length"])
    encoding = plain.get(b"grpc-encoding", _IDENTITY)
    if not _is_grpc(plain.get(b"content-type", b"")):
        head.http_status = 415
    elif pseudo[b":method"] != b"POST":
        head.http_status = 405
    elif encoding not in {_IDENTITY, b"gzip"}:
        text = f"grpc: Decompressor is not installed for grpc-encoding {_quote(encoding)}"
        head.refusal = RpcError(Code.UNIMPLEMENTED, text, [status.ACCEPT_ENCODING])
    head.gzip = encoding == b"gzip"
    return head


def check_trailers(fields: Sequence[Field]) -> None:
    """Check the fields behind a request's messages, which mean nothing in gRPC.

    Raises:
        Malformed: they break HTTP/2's rules.
    """
    for name, value in fields:
        if name.startswith(b":"):
            raise Malformed("a pseudo-header in trailers")
        _check_field(name, value)


def _check_field(name: bytes, value: bytes) -> None:
    if not name or not _BAD_NAME.isdisjoint(name):
        raise Malformed(f"header name {name!r} is not allowed")
    if not _BAD_VALUE.isdisjoint(value):
        raise Malformed(f"value of {name!r} is not allowed")
    if name in _CONNECTION or (name == b"te" and value != b"trailers"):
        raise Malformed(f"{name!r} is about a connection")


def _to_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > _LONGEST_LENGTH:
        raise Malformed("content-length is no number")
    return int(value)


def _is_grpc(content_type: bytes) -> bool:
    lower = content_type.lower()
    return lower.startswith(_GRPC) and lower[len(_GRPC) :][:1] in {b"", b"+", b";"}


def _refused(fields: Sequence[Field], text: str) -> Head:
    head = check(fields)
    if not head.http_status:
        head.refusal = RpcError(Code.INTERNAL, text)
    return head


def _quote(value: bytes) -> str:
    return '"' + value.decode("ascii", "backslashreplace") + '"'


def _to_values(name: bytes, value: bytes) -> list[str | bytes]:
    """Return a field's values: of a binary key there may be several, with commas between."""
    if not name.endswith(b"-bin"):
        return [value.decode("utf-8", "surrogateescape")]
    values: list[str | bytes] = []
    for part in value.split(b","):
        try:
            values.append(base64.b64decode(part + b"=" * (-len(part) % 4)))
        except binascii.Error:
            values.append(part)
    return values
