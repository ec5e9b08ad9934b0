"""Random messages of any kind, whole or damaged."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

DEEPEST = 4
"""How often a message may hold another one."""
_EDGES = {
    FieldDescriptor.CPPTYPE_INT64: (0, 1, 2, 5, -1, -7, 1 << 40, (1 << 63) - 1, -(1 << 63)),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2, 5, 1 << 63, (1 << 64) - 1),
    FieldDescriptor.CPPTYPE_INT32: (0, 1, -1, (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, (1 << 32) - 1),
    # Some that exist, some that do not.
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, 4, 9, -1, (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
}
_names = st.one_of(
    st.sampled_from(("", "a", "b", "user", "3.6.0", "kv", "http://127.0.0.1:1")),
    st.text(max_size=5),
)
_octets = st.one_of(
    st.sampled_from((b"", b"\0", b"a", b"b", b"b\0", b"\xff", bytes(3000))), st.binary(max_size=5)
)


@st.composite
def messages(draw: st.DrawFn, kind: Descriptor, deepest: int = DEEPEST) -> Message:
    """Draw a message with some of its fields set, to values that are right by chance."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if (field.message_type is not None and not deepest) or not draw(st.booleans()):
            continue
        if field.is_repeated:
            values = draw(st.lists(_values(field, deepest), max_size=2))
            getattr(message, field.name).extend(values)
        elif field.message_type is None:
            setattr(message, field.name, draw(_values(field, deepest)))
        else:
            getattr(message, field.name).CopyFrom(draw(_values(field, deepest)))
    return message


def _values(field: FieldDescriptor, deepest: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, deepest - 1)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _octets
    if field.type == FieldDescriptor.TYPE_STRING:
        return _names
    return st.sampled_from(_EDGES[field.cpp_type])


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw what is left after few changes, often none."""
    body = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(body)))
        change = draw(st.sampled_from(("insert", "replace", "cut", "double")))
        if change == "insert":
            body[place:place] = draw(st.binary(min_size=1, max_size=3))
        elif change == "replace":
            body[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == "cut":
            del body[place:]
        else:
            body += body[place:]
    return bytes(body)
