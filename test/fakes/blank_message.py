# SPDX-License-Identifier: Apache-2.0
"""Serialised messages of which a test says only what matters; everything else is zero or empty."""

import dataclasses
import re
from typing import Any

import numpy as np

from imagewam_ros.data.bag_types import typestore

BLANK: dict[str, Any] = {"int": 0, "float": 0.0, "str": "", "bool": False, "list[str]": []}


def blank_message(msgtype: str, stamp_ns: int, **values: Any) -> bytes:
    """A message of `msgtype` ("package/msg/Name") with `values`, whose stamps are all `stamp_ns`."""
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    known = {
        "builtin_interfaces__msg__Time": stamp,
        "std_msgs__msg__Header": types["std_msgs/msg/Header"](stamp=stamp, frame_id=""),
        **BLANK,
    }
    filled = {}
    for field in dataclasses.fields(types[msgtype]):
        kind = str(field.type)
        if field.name in values:
            filled[field.name] = values[field.name]
        elif "ClassVar" not in kind:
            array = re.search(r"dtype\[np\.(\w+)\]", kind)
            filled[field.name] = np.zeros(0, array[1]) if array else known[kind]
    return bytes(typestore().serialize_cdr(types[msgtype](**filled), msgtype))
