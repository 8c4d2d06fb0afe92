# SPDX-License-Identifier: Apache-2.0
"""Read the serialised messages of a whole bag; damage of any kind becomes one kind of error."""

import struct
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError

from imagewam_ros.core.errors import EpisodeError

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdError
else:
    from backports.zstd import ZstdError

DAMAGE = (ReaderError, ZstdError, struct.error, OSError, ValueError, KeyError, IndexError, RuntimeError, AssertionError)
"""What reading a damaged file raises, from the format's own complaint to a bad block (lz4: RuntimeError)."""


class Message(NamedTuple):
    """One message: topic, type ("package/msg/Name"), time of arrival in ns, serialised data."""

    topic: str
    msgtype: str
    log_ns: int
    data: bytes


def messages(directory: Path, topics: Collection[str] | None = None) -> Iterator[Message]:
    """Yield the messages of `topics`, or of all, in the order of their arrival.

    Raises EpisodeError when the file is damaged.
    """
    try:
        with Reader(directory) as reader:
            chosen = [c for c in reader.connections if topics is None or c.topic in topics]
            for connection, log_ns, data in reader.messages(chosen) if chosen else ():
                yield Message(connection.topic, connection.msgtype, log_ns, bytes(data))
    except DAMAGE as error:
        raise EpisodeError(f"{directory} is damaged: {error}; record it again or leave it out") from error
