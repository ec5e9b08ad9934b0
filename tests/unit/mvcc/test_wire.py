import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from datastore.etcdpb.kv_pb2 import KeyValue
from datastore.etcdpb.rpc_pb2 import RangeResponse
from datastore.shim.mvcc.version import Version
from datastore.shim.mvcc.wire import frame_key_value, frame_metadata, value_of, varint

numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1))
leases = st.integers(-(2**63), 2**63 - 1)


@given(st.binary(max_size=200), numbers, numbers, numbers, st.binary(max_size=300), leases)
@example(b"k", 1, 1, 1, b"v", 0)
def test_a_frame_is_what_protobuf_would_have_written(key, create, mod, version, value, lease):
    framed = frame_key_value(key, create, mod, version, value, lease)
    (parsed,) = RangeResponse.FromString(framed).kvs
    expected = KeyValue(
        key=key,
        create_revision=create,
        mod_revision=mod,
        version=version,
        value=value,
        lease=lease,
    )
    assert parsed == expected
    assert framed.endswith(expected.SerializeToString(deterministic=True))
    assert value_of(framed) == value


def test_metadata_has_no_value():
    (parsed,) = RangeResponse.FromString(frame_metadata(b"k", 2, 3, 2, 7)).kvs
    assert parsed == KeyValue(key=b"k", create_revision=2, mod_revision=3, version=2, lease=7)


@pytest.mark.parametrize("bits", range(64))
def test_a_varint_takes_seven_bits_a_byte(bits):
    for number in (2**bits - 1, 2**bits):
        encoded = varint(number)
        assert len(encoded) == max(1, -(-number.bit_length() // 7))
        assert sum((byte & 127) << 7 * at for at, byte in enumerate(encoded)) == number


def test_a_negative_varint_takes_ten_bytes():
    assert varint(-1) == b"\xff" * 9 + b"\x01"


def test_a_version_tells_its_meta_and_comes_back_from_it():
    version = Version(5 << 20 | 1, b"k", 3, 2, 9, b"framed")
    again = Version.from_meta(version.meta)
    assert again.meta == version.meta
    assert (again.framed, again.mod_revision, again.tombstone) == (None, 5, False)
    assert again.meta.tombstone is False
    assert repr(again) == "Version(b'k' @5 v2)"
