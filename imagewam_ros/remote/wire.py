# SPDX-License-Identifier: Apache-2.0
"""Messages of openpi's policy servers: msgpack, with arrays as maps of bytes, dtype and shape. Nothing unpickles.

Source: openpi-client 0.1, `msgpack_numpy.py` and `websocket_client_policy.py` (Apache-2.0): a server sends its
metadata on connect, then answers each observation (a map) with a map that holds "actions" and "server_timing";
a text frame instead of a binary one is the traceback of a failure.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from imagewam_ros.core.errors import ConfigError, RemoteError

ARRAY, SCALAR, DATA, DTYPE, SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"
MISSING = "remote policies need {}, which cannot be imported; pip install -r requirements/remote.txt"
KINDS = "biuf?"
"""Kinds of numpy types that travel: numbers and booleans, never objects."""


def pack(message: Mapping[str, Any]) -> bytes:
    """Serialise a map of plain values and numpy arrays. Raises ConfigError for what cannot travel."""
    try:
        packed: bytes = _msgpack().packb(message, default=_pack_value)
    except TypeError as error:
        raise ConfigError(f"cannot send this message: {error}") from error
    return packed


def unpack(data: bytes) -> dict[str, Any]:
    """Undo `pack`. Raises RemoteError when the bytes are no such map."""
    msgpack = _msgpack()
    try:
        message = msgpack.unpackb(data, object_hook=_unpack_value)
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteError(f"{len(data)} bytes are no msgpack: {error}; does the other side speak openpi?") from error
    if not isinstance(message, dict):
        raise RemoteError(f"expected a map, found {type(message).__name__}; does the other side speak openpi?")
    return message


def _pack_value(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in KINDS:
        raise TypeError(f"{type(value).__name__} {getattr(value, 'dtype', '')} is neither a plain value nor numbers")
    if isinstance(value, np.ndarray):
        return {ARRAY: True, DATA: value.tobytes(), DTYPE: value.dtype.str, SHAPE: value.shape}
    return {SCALAR: True, DATA: value.item(), DTYPE: value.dtype.str}


def _unpack_value(value: dict[Any, Any]) -> Any:
    if ARRAY not in value and SCALAR not in value:
        return value
    try:
        dtype = np.dtype(value[DTYPE])
        if dtype.kind not in KINDS:
            raise ValueError(f"arrays of {dtype} are not accepted")
        if SCALAR in value:
            return dtype.type(value[DATA])
        return np.frombuffer(value[DATA], dtype).reshape(value[SHAPE])
    except (KeyError, TypeError, OverflowError, SyntaxError) as error:  # numpy parses what dtype says
        raise ValueError(f"not an array: {error}") from error


def sockets() -> ModuleType:
    """Return websockets with its blocking client and server. Raises ConfigError when it is not installed."""
    try:
        import websockets.exceptions
        import websockets.sync.client
        import websockets.sync.server
    except ImportError as error:
        raise ConfigError(MISSING.format("websockets")) from error
    module: ModuleType = websockets
    return module


def _msgpack() -> ModuleType:
    try:
        import msgpack
    except ImportError as error:
        raise ConfigError(MISSING.format("msgpack")) from error
    module: ModuleType = msgpack
    return module
