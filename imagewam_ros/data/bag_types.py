# SPDX-License-Identifier: Apache-2.0
"""Message types for bags: the standard ones, ours, and any whose .msg file is installed.

A recording carries the definition of every type in it, so that it can be read on a machine that
has none of them.
"""

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.paths import PACKAGE, share_dir

REFERENCE = re.compile(r"^\s*(\w+)/(?:msg/)?(\w+)(?:\[.*?\])?\s+\w+", re.MULTILINE)
"""A field whose type lives in another package: `std_msgs/Header header`."""

LOCAL_REFERENCE = re.compile(r"^\s*([A-Z]\w*)(?:\[.*?\])?\s+\w+\s*(?:#.*)?$", re.MULTILINE)
"""A field whose type lives beside the message: `Sample[] samples`."""


class Definition(NamedTuple):
    """Text of a type with all that it refers to, and its RIHS01 hash."""

    text: str
    type_hash: str


@cache
def typestore() -> Typestore:
    """Return the standard types and this package's own messages."""
    store = get_typestore(Stores.ROS2_KILTED)
    for path in sorted((share_dir() / "msg").glob("*.msg")):
        _register(store, f"{PACKAGE}/msg/{path.stem}", path)
    return store


@cache
def definition(msgtype: str) -> Definition:
    """Return the definition of `msgtype` ("package/msg/Name"). Raises EpisodeError when it is nowhere installed."""
    store = typestore()
    if msgtype not in store.types:
        _register(store, msgtype, _find(msgtype))
    text, _ = store.generate_msgdef(msgtype, ros_version=2)
    return Definition(text, store.hash_rihs01(msgtype))


def _register(store: Typestore, msgtype: str, path: Path) -> None:
    """Register the type in `path` and, first, all that it refers to."""
    text = path.read_text(encoding="utf8")
    package = msgtype.split("/")[0]
    references = [f"{found[0]}/msg/{found[1]}" for found in REFERENCE.findall(text)]
    references += [f"{package}/msg/{name}" for name in LOCAL_REFERENCE.findall(text)]
    for reference in references:
        if reference not in store.types:
            _register(store, reference, _find(reference))
    store.register(get_types_from_msg(text, msgtype))


def _find(msgtype: str) -> Path:
    package, _, name = msgtype.split("/")
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    candidates = [Path(prefix) / "share" / package / "msg" / f"{name}.msg" for prefix in (*prefixes, sys.prefix)]
    for path in candidates:
        if path.exists():
            return path
    raise EpisodeError(
        f"no definition of {msgtype}: found none of {', '.join(map(str, candidates))}; "
        f"source the workspace that holds {package}, or leave its topics out"
    )
