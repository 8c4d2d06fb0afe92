# SPDX-License-Identifier: Apache-2.0
"""Make a readable bag of a recording that was cut off: by a kill, a crash or a full disk.

Works in place: what is behind the last complete block is cut away, the index is written behind
it and metadata.yaml last. Needs next to no space. Messages that were complete are never touched.
Source: mcap.dev/spec.
"""

import dataclasses
import fcntl
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mcap.exceptions import McapError
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    McapRecord,
    Message,
    MessageIndex,
    Metadata,
    Schema,
)
from mcap.stream_reader import CRCValidationError, StreamReader, breakup_chunk
from rosbags.rosbag2.metadata import parse_qos
from zstandard import ZstdError

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.bag import METADATA, PROVENANCE_RECORD, RESERVE, BagSummary, Topic, TopicCount, write_metadata
from imagewam_ros.data.episode import CUSTOM_KEY
from imagewam_ros.data.interventions import EVENT, Corrections, event_topic
from imagewam_ros.data.mcap_file import MAGIC, index_records, tail
from imagewam_ros.data.mcap_file import record as as_bytes

TORN = (McapError, CRCValidationError, struct.error, zlib.error, ZstdError, RuntimeError, ValueError)
"""What reading a record raises that was not written to its end (lz4 raises RuntimeError)."""


class Recovered(NamedTuple):
    """What a recovery found."""

    directory: Path
    messages: int
    lost_bytes: int


class _Block:
    """One complete block: where it lies and the message indices that it should have."""

    def __init__(self, chunk: Chunk, start: int, end: int) -> None:
        self.indices: dict[int, MessageIndex] = {}
        self.index_bytes, self.index_offsets = 0, dict[int, int]()
        self.chunk = dataclasses.replace(chunk, data=b"")
        self.start, self.end, self.size = start, end, len(chunk.data)

    def record(self) -> ChunkIndex:
        """Return the block's entry in the summary."""
        return ChunkIndex(
            chunk_length=self.end - self.start,
            chunk_start_offset=self.start,
            compression=self.chunk.compression,
            compressed_size=self.size,
            message_end_time=self.chunk.message_end_time,
            message_index_length=self.index_bytes,
            message_index_offsets=self.index_offsets,
            message_start_time=self.chunk.message_start_time,
            uncompressed_size=self.chunk.uncompressed_size,
        )


class _Scan:
    """What the complete blocks of a file hold."""

    def __init__(self) -> None:
        self.schemas: dict[int, Schema] = {}
        self.channels: dict[int, Channel] = {}
        self.blocks: list[_Block] = []
        self.counts: dict[int, int] = {}
        self.metadata: dict[str, str] = {}
        self.events: dict[str, list[bytes]] = {}

    @property
    def end(self) -> int:
        """Offset behind the last complete block; its message index is written anew."""
        return self.blocks[-1].end if self.blocks else 0

    def take(self, record: McapRecord, start: int, end: int) -> None:
        """Add one record that reaches from `start` to `end` in the file."""
        if isinstance(record, Metadata) and record.name == PROVENANCE_RECORD:
            self.metadata.update(record.metadata)
        elif isinstance(record, MessageIndex) and self.blocks:
            block = self.blocks[-1]
            block.index_offsets[record.channel_id] = start
            block.index_bytes += end - start
        elif isinstance(record, Chunk):
            self.blocks.append(self._block(record, start, end))
        else:
            self._define(record)

    def _define(self, record: McapRecord) -> None:
        if isinstance(record, Schema):
            self.schemas[record.id] = record
        elif isinstance(record, Channel):
            self.channels[record.id] = record

    def _block(self, chunk: Chunk, start: int, end: int) -> _Block:
        block, offset = _Block(chunk, start, end), 0
        for record in breakup_chunk(chunk, validate_crc=True):
            self._define(record)
            if isinstance(record, Message):
                index = block.indices.setdefault(record.channel_id, MessageIndex(record.channel_id, []))
                index.records.append((record.log_time, offset))
                self._hear(record)
            offset += _length(record)
        for channel, index in block.indices.items():
            self.counts[channel] = self.counts.get(channel, 0) + len(index.records)
        return block

    def _hear(self, message: Message) -> None:
        channel = self.channels[message.channel_id]
        if self.schemas[channel.schema_id].name == EVENT:
            self.events.setdefault(channel.topic, []).append(message.data)


def recover(directory: Path, custom: Mapping[str, str] | None = None) -> Recovered:
    """Finish the recording in `directory` as far as it goes. `custom` joins what the file itself says.

    The file's copy of the provenance is from the start; who moved the arms is read from the events.
    Raises EpisodeError when there is nothing to recover, it is whole already or somebody still writes it.
    """
    if (directory / METADATA).exists():
        raise EpisodeError(f"{directory} is whole already: it has a {METADATA}")
    files = sorted(directory.glob("*.mcap"))
    if len(files) != 1:
        raise EpisodeError(f"{directory} holds {len(files)} .mcap files, expected one; is it a recording?")
    with files[0].open("r+b") as file:
        _claim(file, directory)
        (directory / RESERVE).unlink(missing_ok=True)
        size = file.seek(0, 2)
        file.seek(0)
        scan = _scan(file, size)
        if not scan.blocks:
            raise EpisodeError(f"{files[0]} holds no complete block of {size} bytes; remove {directory}")
        file.seek(scan.end)
        file.truncate()
        file.write(_tail(scan))
    summary = BagSummary(
        file=files[0].name,
        start_ns=min(block.chunk.message_start_time for block in scan.blocks),
        end_ns=max(block.chunk.message_end_time for block in scan.blocks),
        counts=[TopicCount(_topic(scan, channel), scan.counts.get(id, 0)) for id, channel in scan.channels.items()],
    )
    write_metadata(directory, summary, {**scan.metadata, **_who_moved(scan), **(custom or {})})
    return Recovered(directory, sum(scan.counts.values()), size - scan.end)


def _claim(file: BinaryIO, directory: Path) -> None:
    """Raise EpisodeError where a recorder holds the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EpisodeError(f"{directory} is being recorded; stop the recorder first") from None
    except OSError:
        return  # a disk that knows no locks


def cut_off(root: Path) -> list[Path]:
    """Return the recordings in `root` (or `root` itself) that have no metadata, sorted."""
    folders = {path.parent for pattern in ("*.mcap", "*/*.mcap") for path in root.glob(pattern)}
    return sorted(folder for folder in folders if not (folder / METADATA).exists())


def _scan(file: BinaryIO, size: int) -> _Scan:
    """Read complete blocks until the end or the first torn record."""
    scan = _Scan()
    records = StreamReader(file, emit_chunks=True, record_size_limit=size).records
    start = len(MAGIC)
    while True:
        try:
            record = next(records, None)
            done = record is None or isinstance(record, DataEnd) or file.tell() > size
            if record is not None and not done:
                scan.take(record, start, file.tell())
        except TORN:
            return scan
        if done:
            return scan
        start = file.tell()


def _tail(scan: _Scan) -> bytes:
    """Everything behind the last block: its message index, which may have been cut off, and the summary."""
    last = scan.blocks[-1]
    index, last.index_offsets = index_records(last.indices, scan.end)
    last.index_bytes = len(index)
    chunks = [block.record() for block in scan.blocks]
    behind = scan.end + len(index)
    return index + tail(behind, scan.schemas, scan.channels, chunks, scan.counts, 1 if scan.metadata else 0)


def _who_moved(scan: _Scan) -> dict[str, str]:
    """Provenance with what only the end of a recording would have said, where it is an episode of ours."""
    about = json.loads(scan.metadata.get(CUSTOM_KEY, "{}"))
    topic = event_topic(dict.fromkeys(scan.events, EVENT), about.get("joint_topic", ""))
    if not about or not topic:
        return {}
    found = Corrections.recorded(scan.events[topic])
    about |= {"interventions": found.spans, "policy_ran": found.policy_ran}
    return {CUSTOM_KEY: json.dumps(about)}


def _topic(scan: _Scan, channel: Channel) -> Topic:
    qos = tuple(parse_qos(channel.metadata.get("offered_qos_profiles", "")))
    return Topic(channel.topic, scan.schemas[channel.schema_id].name, qos)


def _length(record: McapRecord) -> int:
    """Bytes of a record inside a block."""
    if isinstance(record, Message):
        return 9 + 22 + len(record.data)
    return len(as_bytes(record))
