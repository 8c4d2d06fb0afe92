# SPDX-License-Identifier: Apache-2.0
"""Write an MCAP file without copying the messages: a recorder moves a hundred megabytes a second.

Messages are gathered as they are and handed to the file block by block. The records themselves
are the mcap library's. Source: mcap.dev/spec.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import lz4.frame
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    MessageIndex,
    Metadata,
    Schema,
    Statistics,
)

MAGIC = b"\x89MCAP0\r\n"
BLOCK_BYTES = 4 * 2**20
MESSAGE = struct.Struct("<BQHIQQ")
"""Opcode, length, channel, sequence, time of arrival, time of publication; the data follow."""

MESSAGE_FIELDS = MESSAGE.size - 9
COMPRESSORS = {"none": bytes, "lz4": lz4.frame.compress, "zstd": zstandard.compress}


class McapFile:
    """Schemas, channels, messages; `flush` ends a block, `finish` writes the index. Raises OSError as the file does."""

    _start_ns: int
    _end_ns: int

    def __init__(self, file: BinaryIO, compression: str, metadata: Mapping[str, Mapping[str, str]]) -> None:
        """Begin the file. `metadata` are named mappings that stand before the first message."""
        self._file, self._compression = file, compression
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._chunks: list[ChunkIndex] = []
        self._metadata = len(metadata)
        self.counts: dict[int, int] = {}
        file.write(MAGIC + record(Header(profile="ros2", library="imagewam_ros")))
        for name, values in metadata.items():
            file.write(record(Metadata(name=name, metadata=dict(values))))
        self._begin()

    def schema(self, name: str, text: str) -> int:
        """Add a type's definition and return its number."""
        found = Schema(id=len(self._schemas) + 1, name=name, encoding="ros2msg", data=text.encode())
        self._schemas[found.id] = found
        self._add(record(found))
        return found.id

    def channel(self, topic: str, schema: int, metadata: Mapping[str, str]) -> int:
        """Add a topic and return its number."""
        number = len(self._channels) + 1
        self._channels[number] = Channel(
            id=number, schema_id=schema, topic=topic, message_encoding="cdr", metadata=dict(metadata)
        )
        self.counts[number] = 0
        self._add(record(self._channels[number]))
        return number

    def message(self, channel: int, log_ns: int, publish_ns: int, data: bytes) -> None:
        """Add one serialised message."""
        index = self._indices.setdefault(channel, MessageIndex(channel_id=channel, records=[]))
        index.records.append((log_ns, self._size))
        length = MESSAGE_FIELDS + len(data)
        self._add(MESSAGE.pack(Opcode.MESSAGE, length, channel, self.counts[channel] & 0xFFFFFFFF, log_ns, publish_ns))
        self._add(data)
        self._start_ns, self._end_ns = min(self._start_ns, log_ns), max(self._end_ns, log_ns)
        self.counts[channel] += 1
        if self._size > BLOCK_BYTES:
            self._end_block()

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._end_block()
        self._file.flush()

    def finish(self) -> None:
        """Write the index. The file stays open."""
        self._end_block()
        self._file.write(
            tail(self._file.tell(), self._schemas, self._channels, self._chunks, self.counts, self._metadata)
        )
        self._file.flush()

    def _begin(self) -> None:
        self._parts: list[bytes] = []
        self._size, self._crc = 0, 0
        self._start_ns, self._end_ns = 2**63, 0
        self._indices: dict[int, MessageIndex] = {}

    def _add(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)
        self._crc = zlib.crc32(part, self._crc)

    def _end_block(self) -> None:
        """Write the block in the making and the index of its messages."""
        if not self._indices:
            return
        name = "" if self._compression == "none" else self._compression
        parts = [COMPRESSORS[self._compression](b"".join(self._parts))] if name else self._parts
        size = sum(map(len, parts)) if name else self._size
        fields = struct.pack("<QQQI", self._start_ns, self._end_ns, self._size, self._crc)
        fields += struct.pack("<I", len(name)) + name.encode() + struct.pack("<Q", size)
        start = self._file.tell()
        self._file.write(struct.pack("<BQ", Opcode.CHUNK, len(fields) + size) + fields)
        for part in parts:
            self._file.write(part)
        end = self._file.tell()
        index, offsets = index_records(self._indices, end)
        self._file.write(index)
        self._chunks.append(
            ChunkIndex(
                chunk_length=end - start,
                chunk_start_offset=start,
                compression=name,
                compressed_size=size,
                message_end_time=self._end_ns,
                message_index_length=len(index),
                message_index_offsets=offsets,
                message_start_time=self._start_ns,
                uncompressed_size=self._size,
            )
        )
        self._begin()


def record(value: McapRecord) -> bytes:
    """Return a record as it stands in the file."""
    builder = RecordBuilder()
    value.write(builder)
    return bytes(builder.end())


def index_records(indices: Mapping[int, MessageIndex], offset: int) -> tuple[bytes, dict[int, int]]:
    """Return a block's message indices as they stand at `offset`, and where each one begins."""
    builder, offsets = RecordBuilder(), {}
    for channel, index in indices.items():
        offsets[channel] = offset + builder.count
        index.write(builder)
    return bytes(builder.end()), offsets


def tail(
    offset: int,
    schemas: Mapping[int, Schema],
    channels: Mapping[int, Channel],
    chunks: Sequence[ChunkIndex],
    counts: Mapping[int, int],
    metadata: int,
) -> bytes:
    """Return what stands behind the last block, at `offset`: end of data, summary, footer."""
    builder = RecordBuilder()
    DataEnd(data_section_crc=0).write(builder)
    summary_start = offset + builder.count
    statistics = Statistics(
        attachment_count=0,
        channel_count=len(channels),
        channel_message_counts=dict(counts),
        chunk_count=len(chunks),
        message_count=sum(counts.values()),
        message_end_time=max((chunk.message_end_time for chunk in chunks), default=0),
        message_start_time=min((chunk.message_start_time for chunk in chunks), default=0),
        metadata_count=metadata,
        schema_count=len(schemas),
    )
    for value in (*schemas.values(), *channels.values(), statistics, *chunks):
        value.write(builder)
    Footer(summary_start=summary_start, summary_offset_start=0, summary_crc=0).write(builder)
    return bytes(builder.end()) + MAGIC
