"""mvccpb.KeyValue, encoded by hand: once a version, shared by every reply and event.

A *framed* KeyValue is the message with the tag of field 2 and its length in front. Field 2 is
where RangeResponse.kvs, PutResponse.prev_kv and Event.kv have it, so those are a join of bytes;
where a message has it in field 3 (Event.prev_kv, DeleteRangeResponse.prev_kvs) the first byte is
replaced by `AS_FIELD_3`.
"""

from __future__ import annotations

FIELD_2 = b"\x12"
AS_FIELD_3 = b"\x1a"

_SMALL = [bytes((n,)) for n in range(128)]
_UINT64 = (1 << 64) - 1


def varint(number: int) -> bytes:
    """Return `number` as a protobuf varint; a negative one as its 64-bit two's complement. Hot."""
    if number < 1 << 7:
        if number >= 0:
            return _SMALL[number]
        number &= _UINT64
    elif number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    elif number < 1 << 21:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))
    elif number < 1 << 28:
        return bytes(
            (number & 127 | 128, number >> 7 & 127 | 128, number >> 14 & 127 | 128, number >> 21)
        )
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at` and where it ends. Hot.

    Raises:
        IndexError: it is cut off, or longer than a varint can be.
    """
    number = data[at]
    at += 1
    if number < 128:
        return number, at
    number &= 127
    shift = 7
    while shift < 70:
        octet = data[at]
        at += 1
        number |= (octet & 127) << shift
        if octet < 128:
            return number, at
        shift += 7
    raise IndexError("a varint of more than ten octets")


def frame(tag: bytes, message: bytes) -> bytes:
    """Return a length-delimited field: its tag, the message's length, the message."""
    return tag + varint(len(message)) + message


def frame_key_value(  # noqa: PLR0917 - the six fields of the message
    key: bytes, create_revision: int, mod_revision: int, version: int, value: bytes, lease: int
) -> bytes:
    """Return a framed KeyValue, what is empty or zero left out. Hot: once a write."""
    if not (key and create_revision and mod_revision and version):
        return _frame_sparse(key, create_revision, mod_revision, version, value, lease)
    size = len(key)
    modified = varint(mod_revision)
    created = modified if create_revision == mod_revision else varint(create_revision)
    if size < 128 and version < 128:
        head = b"\x0a%c%b\x10%b\x18%b\x20%c" % (size, key, created, modified, version)
    else:
        numbers = (varint(size), key, created, modified, varint(version))
        head = b"\x0a%b%b\x10%b\x18%b\x20%b" % numbers
    if value:
        head += b"\x2a" + varint(len(value))
    tail = b"\x30" + varint(lease) if lease else b""
    # The value, which may be large, is copied once.
    return b"".join((FIELD_2, varint(len(head) + len(value) + len(tail)), head, value, tail))


def _frame_sparse(  # noqa: PLR0917
    key: bytes, create_revision: int, mod_revision: int, version: int, value: bytes, lease: int
) -> bytes:
    numbers = ((b"\x10", create_revision), (b"\x18", mod_revision), (b"\x20", version))
    parts = [frame(b"\x0a", key)] if key else []
    parts += [tag + varint(number) for tag, number in numbers if number]
    if value:
        parts.append(frame(b"\x2a", value))
    if lease:
        parts.append(b"\x30" + varint(lease))
    return frame(FIELD_2, b"".join(parts))


def frame_metadata(
    key: bytes, create_revision: int, mod_revision: int, version: int, lease: int
) -> bytes:
    """Return a framed KeyValue without its value, for `keys_only`."""
    return frame_key_value(key, create_revision, mod_revision, version, b"", lease)


def unframe(framed: bytes) -> bytes:
    """Return the message inside a framed KeyValue."""
    return framed[_skip_varint(framed, 1) :]


def value_of(framed: bytes) -> bytes:
    """Return the value inside a framed KeyValue made by `frame_key_value`."""
    at = _skip_varint(framed, 1)
    size = len(framed)
    while at < size:
        tag = framed[at]
        at += 1
        if tag in _LENGTH_DELIMITED:
            length, at = read_varint(framed, at)
            if tag == _VALUE:
                return framed[at : at + length]
            at += length
        else:
            at = _skip_varint(framed, at)
    return b""


_VALUE = 0x2A
_LENGTH_DELIMITED = (0x0A, _VALUE)


def _skip_varint(data: bytes, at: int) -> int:
    while data[at] & 128:
        at += 1
    return at + 1
