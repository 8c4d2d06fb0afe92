# SPDX-License-Identifier: Apache-2.0
"""openpi's arrays on the wire, byte by byte, and what is refused."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.core.errors import ConfigError, RemoteError
from imagewam_ros.remote.wire import pack, unpack


@given(
    st.sampled_from(["u1", "<i4", "<f4", "<f8", "?"]), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 2**31)
)
def test_arrays_come_back_as_they_were(dtype, shape, seed):
    array = np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
    found = unpack(pack({"images": {"head": array}, "state": np.float32(0.5), "prompt": "lift"}))
    assert found["images"]["head"].dtype == array.dtype and np.array_equal(found["images"]["head"], array)
    assert found["images"]["head"].shape == array.shape
    assert found["state"] == np.float32(0.5) and found["prompt"] == "lift"


def test_bytes_are_those_of_openpi():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain = msgpack.unpackb(pack({"actions": array}))
    expected = {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": "<f4", b"shape": [2, 3]}
    assert plain == {"actions": expected}


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["a"]), np.array([1j]), {1, 2}])
def test_what_is_no_number_does_not_travel(value):
    with pytest.raises(ConfigError, match="cannot send this message: .* is neither a plain value nor numbers"):
        pack({"a": value})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xc1", "bytes are no msgpack"),
        (msgpack.packb([1, 2]), "expected a map, found list"),
        (msgpack.packb({"a": {b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [0]}}), "object are not"),
        (msgpack.packb({"a": {b"__ndarray__": True, b"data": b"12", b"dtype": "<f4", b"shape": [1]}}), "no msgpack"),
        (msgpack.packb({"a": {b"__ndarray__": True}}), "not an array"),
        (msgpack.packb({"a": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}}), "not an array: .* out of"),
        (msgpack.packb({"a": {b"__ndarray__": True, b"data": b"", b"dtype": "(2,", b"shape": [0]}}), "not an array"),
        (pack({"a": np.zeros(4)})[:-3], "no msgpack"),
    ],
)
def test_what_cannot_be_read_is_named(data, reason):
    with pytest.raises(RemoteError, match=reason):
        unpack(data)
