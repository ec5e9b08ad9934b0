"""Messages as JSON and back, by the rules of Go's protojson, which etcd's gateway uses.

google.protobuf.json_format takes what Go refuses: bytes that are no base64, a field twice.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_LONGEST_NUMBER: Final = 64
_URL_SAFE: Final = str.maketrans("-_+/", "+/!!")
_SPACE: Final = " \t\r\n"

_Field = FieldDescriptor
_INTEGERS: Final = {
    _Field.TYPE_INT32: ("int32", -(1 << 31), (1 << 31) - 1),
    _Field.TYPE_ENUM: ("enum", -(1 << 31), (1 << 31) - 1),
    _Field.TYPE_INT64: ("int64", -(1 << 63), (1 << 63) - 1),
    _Field.TYPE_UINT32: ("uint32", 0, (1 << 32) - 1),
    _Field.TYPE_UINT64: ("uint64", 0, (1 << 64) - 1),
}


class BadJson(Exception):
    """A text is no JSON, or not that of the message; the text says why, for the client."""


class _Number(str):
    """A number as it was written: none may be rounded on its way."""

    __slots__ = ()


class _Fields(list[tuple[str, Any]]):
    """An object with every field, also those that come twice."""

    __slots__ = ()


def encode(message: Message) -> bytes:
    """Return a message as JSON: names of the .proto file, 64-bit numbers as text, no defaults."""
    return json.dumps(_to_object(message), ensure_ascii=False, separators=(",", ":")).encode()


def decode(text: bytes, kind: type[Message]) -> Message:
    """Return the message of the first JSON value in `text`; nothing is an empty message.

    What follows the value and fields that nobody knows are passed over, as in etcd.

    Raises:
        BadJson: it is no such message.
    """
    message = kind()
    try:
        shown = text.decode()
        if shown.strip(_SPACE):
            _fill(message, _parse(shown))
    except UnicodeError as error:
        raise BadJson("proto: invalid UTF-8") from error
    except RecursionError as error:
        raise BadJson("proto: exceeded max recursion depth") from error
    return message


def _parse(text: str) -> Any:
    """Return the first value."""
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        return _DECODER.raw_decode(text, start)[0]
    except json.JSONDecodeError as error:
        if error.pos >= len(text) or error.msg.startswith("Unterminated"):
            raise BadJson("unexpected EOF") from error
        raise BadJson(f"invalid character {text[error.pos]!r} at offset {error.pos}") from error


def _refuse_constant(name: str) -> Any:
    raise BadJson(f"invalid character {name[0]!r} looking for beginning of value")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_Fields,
    parse_int=_Number,
    parse_float=_Number,
    parse_constant=_refuse_constant,
)


# Messages to JSON


def _to_object(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        convert = _writer(field)
        if convert is None:
            found[field.name] = value
        elif field.is_repeated:
            found[field.name] = [convert(each) for each in value]
        else:
            found[field.name] = convert(value)
    return found


@cache
def _writer(field: FieldDescriptor) -> Callable[[Any], Any] | None:
    """Return what makes JSON of a field's value; None where it is JSON already."""
    if field.type == _Field.TYPE_MESSAGE:
        return _to_object
    if field.type == _Field.TYPE_BYTES:
        return lambda value: b64encode(value).decode("ascii")
    if field.type in {_Field.TYPE_INT64, _Field.TYPE_UINT64}:
        return str
    if field.type == _Field.TYPE_ENUM:
        assert field.enum_type is not None
        names = {each.number: each.name for each in field.enum_type.values}
        return lambda value: names.get(value, value)
    return _as_it_is if field.is_repeated else None


def _as_it_is(value: Any) -> Any:
    return value


# JSON to messages


@cache
def _fields_of(kind: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Return the fields by both of their names."""
    return {name: field for field in kind.fields for name in (field.name, field.json_name)}


def _fill(message: Message, value: Any) -> None:
    if not isinstance(value, _Fields):
        raise BadJson(f"proto: syntax error: unexpected token {_show(value)}")
    known = _fields_of(message.DESCRIPTOR)
    seen: set[int] = set()
    for name, each in value:
        field = known.get(name)
        if field is None:
            continue
        if field.number in seen:
            raise BadJson(f"proto: duplicate field {json.dumps(name)}")
        seen.add(field.number)
        if each is None:
            continue
        union = field.containing_oneof
        if union is not None and message.WhichOneof(union.name) is not None:
            text = f"oneof {union.full_name} is already set"
            raise BadJson(f"proto: error parsing {json.dumps(name)}, {text}")
        _set(message, field, each)


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        _extend(getattr(message, field.name), field, value)
    elif field.type == _Field.TYPE_MESSAGE:
        child = getattr(message, field.name)
        child.SetInParent()
        _fill(child, value)
    elif (found := _to_scalar(field, value)) is not None:
        setattr(message, field.name, found)


def _extend(target: Any, field: FieldDescriptor, values: Any) -> None:
    if not isinstance(values, list) or isinstance(values, _Fields):
        raise BadJson(f"proto: syntax error: unexpected token {_show(values)}")
    for value in values:
        if field.type == _Field.TYPE_MESSAGE:
            _fill(target.add(), value)
        elif (found := _to_scalar(field, value)) is not None:
            target.append(found)


def _to_scalar(field: FieldDescriptor, value: Any) -> int | str | bytes | bool | None:
    """Return the value of a field; None for the name of an enum's value that nobody knows."""
    found: int | str | bytes | bool | None = None
    if field.type == _Field.TYPE_BOOL:
        found = value if isinstance(value, bool) else None
    elif field.type == _Field.TYPE_STRING:
        if _is_text(value):
            value.encode()  # half a surrogate pair is refused here
            found = value
    elif field.type == _Field.TYPE_BYTES:
        found = _to_bytes(value) if _is_text(value) else None
    elif field.type == _Field.TYPE_ENUM and _is_text(value):
        assert field.enum_type is not None
        known = field.enum_type.values_by_name.get(value)
        return None if known is None else known.number
    elif isinstance(value, str):
        found = _to_integer(field, value)
    if found is None:
        kind = {_Field.TYPE_BOOL: "bool", _Field.TYPE_STRING: "string", _Field.TYPE_BYTES: "bytes"}
        name = kind.get(field.type) or _INTEGERS[field.type][0]
        raise BadJson(f"proto: invalid value for {name} field {field.name}: {_show(value)}")
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, _Number)


def _to_bytes(text: str) -> bytes | None:
    """Decode either alphabet of base64, with padding or without, as Go does."""
    if "-" in text or "_" in text:
        text = text.translate(_URL_SAFE)
    text = text.replace("\r", "").replace("\n", "")
    if len(text) % 4 and not text.endswith("="):
        text += "=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return None


def _to_integer(field: FieldDescriptor, text: str) -> int | None:
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    _, least, most = _INTEGERS[field.type]
    number = Decimal(text)
    if number != number.to_integral_value() or not least <= number <= most:
        return None
    return int(number)


def _show(value: Sequence[object] | bool | None) -> str:
    """Return the beginning of a value, for whoever looks for his mistake."""
    if isinstance(value, _Number):
        return value[:_LONGEST_NUMBER]
    if isinstance(value, _Fields):
        return "{"
    if isinstance(value, list):
        return "["
    return json.dumps(value[:_LONGEST_NUMBER] if isinstance(value, str) else value)
