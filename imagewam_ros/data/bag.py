# SPDX-License-Identifier: Apache-2.0
"""Write serialised messages as a rosbag2 folder with MCAP storage. Its messages are never decoded.

metadata.yaml comes last, by a rename: a folder without it did not finish. `flush` hands what was
written to the operating system, so a process that is killed loses what came after the last flush.
Source: rosbag2's metadata version 9, mcap.dev/spec.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import yaml
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import dump_qos_v9

from imagewam_ros.core.errors import EpisodeError, unknown_name
from imagewam_ros.data.bag_types import definition
from imagewam_ros.data.mcap_file import COMPRESSORS, McapFile

METADATA = "metadata.yaml"
INFORMATION = "rosbag2_bagfile_information"
RESERVE, RESERVE_BYTES = ".reserve", 2**18
"""A file that is given up at the end, so that a full disk has room for index and metadata."""

PROVENANCE_RECORD = "imagewam"
"""MCAP metadata record at the start of the file: what is known before the first message."""


class Topic(NamedTuple):
    """One topic of a bag: its name, type ("package/msg/Name") and the QoS its publishers offer."""

    name: str
    msgtype: str
    qos: tuple[Qos, ...] = ()


class TopicCount(NamedTuple):
    """A topic and how many of its messages are in the bag."""

    topic: Topic
    messages: int


class BagSummary(NamedTuple):
    """What metadata.yaml says about the messages. Times in ns; start_ns is 0 when there are none."""

    file: str
    start_ns: int
    end_ns: int
    counts: Sequence[TopicCount]


class BagWriter:
    """A bag under construction. `close` makes it whole; leaving the `with` block by an error does not."""

    def __init__(self, directory: Path, custom: Mapping[str, str], compression: str = "none") -> None:
        """Create `directory`. `custom` is kept in the file from its first byte on.

        Raises EpisodeError when the folder exists, cannot be made or the compression is unknown.
        """
        if compression not in COMPRESSORS:
            raise EpisodeError(unknown_name("compression", compression, COMPRESSORS))
        try:
            directory.mkdir(parents=True)
            (directory / RESERVE).write_bytes(bytes(RESERVE_BYTES))
            self.path = directory / f"{directory.name}_0.mcap"
            self._file = self.path.open("xb")
        except FileExistsError:
            raise EpisodeError(f"{directory} exists; record to another folder or remove it first") from None
        except OSError as error:
            raise EpisodeError(f"cannot record to {directory}: {error}; choose another folder") from error
        with contextlib.suppress(OSError):  # a disk that knows no locks
            fcntl.flock(self._file, fcntl.LOCK_EX)  # ends with the process: `recover` sees who still writes
        self.directory = directory
        self._writer = McapFile(self._file, compression, {PROVENANCE_RECORD: custom})
        self._writer.flush()
        self._schemas: dict[str, int] = {}
        self._topics: dict[int, Topic] = {}
        self._start_ns, self._end_ns = 0, 0
        self.messages, self.bytes = 0, 0
        self.aborted = False

    def add(self, topic: Topic) -> int:
        """Add a topic and return its channel. Raises EpisodeError for a type without a definition."""
        text, type_hash = definition(topic.msgtype)
        if topic.msgtype not in self._schemas:
            self._schemas[topic.msgtype] = self._writer.schema(topic.msgtype, text)
        about = {
            "offered_qos_profiles": yaml.safe_dump(_qos(topic)).strip() if topic.qos else "",
            "topic_type_hash": type_hash,
        }
        channel = self._writer.channel(topic.name, self._schemas[topic.msgtype], about)
        self._topics[channel] = topic
        return channel

    def write(self, channel: int, log_ns: int, data: bytes, publish_ns: int = 0) -> None:
        """Write one serialised message, received at `log_ns`. Raises OSError as the disk does."""
        self._writer.message(channel, log_ns, publish_ns or log_ns, data)
        self._start_ns = min(self._start_ns or log_ns, log_ns)
        self._end_ns = max(self._end_ns, log_ns)
        self.messages += 1
        self.bytes += len(data)

    def flush(self) -> None:
        """Hand everything to the operating system. Raises OSError as the disk does."""
        self._writer.flush()

    def close(self, custom: Mapping[str, str]) -> None:
        """Finish the file, then write metadata.yaml with `custom`. Raises OSError as the disk does; then it is over."""
        (self.directory / RESERVE).unlink()
        try:
            self._writer.finish()
            os.fsync(self._file.fileno())
            counts = [TopicCount(topic, self._writer.counts[channel]) for channel, topic in self._topics.items()]
            write_metadata(self.directory, BagSummary(self.path.name, self._start_ns, self._end_ns, counts), custom)
        except OSError:
            self.abort()
            raise
        self._file.close()

    def abort(self) -> None:
        """Leave the file as it is, without index and metadata."""
        self.aborted = True
        (self.directory / RESERVE).unlink(missing_ok=True)
        self._file.raw.close()  # not the buffer: on a full disk it would try to write once more

    def __enter__(self) -> "BagWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self.abort()


def write_metadata(directory: Path, summary: BagSummary, custom: Mapping[str, str]) -> None:
    """Write rosbag2's metadata.yaml by a rename: it is whole or not there."""
    when = {
        "starting_time": {"nanoseconds_since_epoch": summary.start_ns},
        "duration": {"nanoseconds": summary.end_ns - summary.start_ns},
        "message_count": sum(count.messages for count in summary.counts),
    }
    information: dict[str, Any] = {
        "version": 9,
        "storage_identifier": "mcap",
        **when,
        "topics_with_message_count": [_topic(count) for count in summary.counts],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [summary.file],
        "files": [{"path": summary.file, **when}],
        "custom_data": dict(custom),
        "ros_distro": os.environ.get("ROS_DISTRO", ""),
    }
    _replace(directory / METADATA, {INFORMATION: information})


def read_information(directory: Path) -> dict[str, Any]:
    """Return what metadata.yaml says of a bag. Raises EpisodeError where there is none, or a damaged one."""
    path = directory / METADATA
    try:
        data = yaml.safe_load(path.read_text(encoding="utf8"))
        information: dict[str, Any] = {"custom_data": None, **data[INFORMATION]}
    except FileNotFoundError:
        if not directory.is_dir():
            raise EpisodeError(f"no episode at {directory}; check the path") from None
        raise EpisodeError(f"{directory} has no {METADATA}: its recording was cut off; recover or remove it") from None
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise EpisodeError(f"{path} is damaged ({reason}); remove it, then recover the recording") from error
    information["custom_data"] = information["custom_data"] or {}
    return information


def rewrite_custom(directory: Path, custom: Mapping[str, str]) -> None:
    """Change keys of a whole bag's custom data. Raises EpisodeError as `read_information` does."""
    information = read_information(directory)
    information["custom_data"] |= custom
    _replace(directory / METADATA, {INFORMATION: information})


def metadata_hash(directory: Path) -> str:
    """SHA-256 of a whole bag's metadata, which tells it from others and changes with its label."""
    return hashlib.sha256((directory / METADATA).read_bytes()).hexdigest()


def _replace(path: Path, data: Mapping[str, Any]) -> None:
    part = path.with_suffix(".yaml.part")
    with part.open("w", encoding="utf8") as file:
        yaml.safe_dump(dict(data), file, sort_keys=False)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _topic(count: TopicCount) -> dict[str, Any]:
    return {
        "topic_metadata": {
            "name": count.topic.name,
            "type": count.topic.msgtype,
            "serialization_format": "cdr",
            "offered_qos_profiles": _qos(count.topic),
            "type_description_hash": definition(count.topic.msgtype).type_hash,
        },
        "message_count": count.messages,
    }


def _qos(topic: Topic) -> list[dict[str, Any]]:
    return [dict(profile) for profile in dump_qos_v9(list(topic.qos))]
