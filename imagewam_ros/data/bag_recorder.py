# SPDX-License-Identifier: Apache-2.0
"""Record serialised messages on a thread of its own, and count what came, went missing and gaped.

`put` only appends to a queue; compressing and writing happen elsewhere. Where the disk is too
slow the queue fills and messages are dropped and counted, never silently. A disk that fills up
ends the recording with a readable bag. Knows nothing of ROS.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from imagewam_ros.core.errors import ConfigError, EpisodeError, unknown_name
from imagewam_ros.data.bag import BagWriter, Topic
from imagewam_ros.data.bag_counts import COUNTS_KEY, Counts
from imagewam_ros.data.bag_images import COMPRESSED, FORMATS, RAW, compress
from imagewam_ros.data.mcap_file import COMPRESSORS
from imagewam_ros.data.recover import recover


@dataclass(frozen=True)
class RecordingConfig:
    """How to write.

    compression is that of the file's blocks (none, lz4, zstd), image_format what images become
    (raw, png, jpeg). queue_mb bounds the memory for messages that wait for the disk; flush_s is
    how much a killed process loses; the recording ends when less than free_mb are left.
    """

    compression: str = "none"
    image_format: str = "raw"
    jpeg_quality: int = 95
    encoder_threads: int = 2
    queue_mb: int = 512
    flush_s: float = 0.5
    free_mb: int = 1024

    def __post_init__(self) -> None:
        for field, value, known in (
            ("compression", self.compression, COMPRESSORS),
            ("image_format", self.image_format, FORMATS),
        ):
            if value not in known:
                raise ConfigError(unknown_name(field, value, known))
        if not 1 <= self.jpeg_quality <= 100 or self.encoder_threads < 1 or self.queue_mb < 1:
            raise ConfigError("jpeg_quality is 1 to 100; encoder_threads and queue_mb are positive")
        if not 0 < self.flush_s <= 10 or self.free_mb < 0:
            raise ConfigError("flush_s is above 0 and at most 10; free_mb is not negative")


class _Message(NamedTuple):
    stream: int
    log_ns: int
    publish_ns: int
    size: int
    data: "bytes | Future[bytes]"


_NOTHING = _Message(-1, 0, 0, 0, b"")


class Recording:
    """One recording in progress: `add` topics, `put` messages, `stop`.

    One thread calls `add` and `put`; the bag belongs to the writer thread alone. `failure` says
    why the recording ended by itself, and is empty while it runs.
    """

    def __init__(self, directory: Path, custom: Mapping[str, str], config: RecordingConfig) -> None:
        """Create the bag. Raises EpisodeError where that is impossible or the disk is nearly full."""
        self.directory, self.failure = directory, ""
        self._config = config
        self._check_space(directory.parent)
        self._bag = BagWriter(directory, custom, config.compression)
        self._topics: list[Topic] = []
        self._counts: list[Counts] = []
        self._channels: list[int] = []
        self._encoded: set[int] = set()
        self._waiting: SimpleQueue[_Message | Topic | None] = SimpleQueue()
        self._queued_bytes, self._done_bytes = 0, 0
        self._encoders = ThreadPoolExecutor(config.encoder_threads, "encode") if config.image_format != "raw" else None
        self._thread = threading.Thread(target=self._run, name="bag-writer", daemon=True)
        self._thread.start()

    @property
    def messages(self) -> int:
        """Messages written."""
        return self._bag.messages

    @property
    def written_bytes(self) -> int:
        """Bytes of messages written."""
        return self._bag.bytes

    @property
    def dropped(self) -> int:
        """Messages received but not written, because the disk or the encoders were too slow."""
        return sum(counts.dropped for counts in self._counts)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the writer."""
        return self._queued_bytes - self._done_bytes

    def add(self, topic: Topic) -> int:
        """Add a topic and return its number for `put`."""
        if topic.msgtype == RAW and self._encoders:
            topic = Topic(f"{topic.name}/compressed", COMPRESSED, topic.qos)
            self._encoded.add(len(self._topics))
        self._topics.append(topic)
        self._counts.append(Counts())
        self._waiting.put(topic)
        return len(self._topics) - 1

    def put(self, stream: int, log_ns: int, data: bytes, publish_ns: int = 0, sequence: int = 0) -> None:
        """Queue one serialised message that was received at `log_ns`; never waits."""
        counts, size = self._counts[stream], len(data)
        counts.arrive(log_ns, sequence)
        if self.failure or self.queued_bytes + size > self._config.queue_mb * 2**20:
            counts.dropped += 1
            return
        self._queued_bytes += size
        later: bytes | Future[bytes] = data
        if self._encoders and stream in self._encoded:
            later = self._encoders.submit(compress, data, self._config.image_format, self._config.jpeg_quality)
        self._waiting.put(_Message(stream, log_ns, publish_ns, size, later))

    def report(self) -> dict[str, Any]:
        """Counts per topic and why the recording ended by itself."""
        topics = {topic.name: counts.to_dict() for topic, counts in zip(self._topics, self._counts, strict=True)}
        return {"topics": topics, "failure": self.failure}

    def stop(self, finish: Callable[[], Mapping[str, str]] = dict) -> dict[str, Any]:
        """Write what is queued and make the bag whole; `finish` returns its last custom data.

        Returns the report. Raises EpisodeError when even that is impossible.
        """
        self._waiting.put(None)
        self._thread.join()
        if self._encoders:
            self._encoders.shutdown()
        report = self.report()
        custom = {**finish(), COUNTS_KEY: json.dumps(report)}
        try:
            if self._bag.aborted:
                recover(self.directory, custom)
            else:
                self._bag.close(custom)
        except OSError as error:
            raise EpisodeError(
                f"cannot finish {self.directory}: {error}; free some space, then recover it with "
                f"`imagewam record --recover {self.directory}`"
            ) from error
        return report

    def _run(self) -> None:
        """Run the writer thread. A fault of the program ends the recording too, and not silently."""
        done = False
        try:
            self._write_all()
            done = True
        finally:
            if not done:
                self.failure = "the writer stopped by a fault of the program; its traceback is in the log"

    def _write_all(self) -> None:
        """Write everything in order until None comes; after a failure, only count."""
        flushed_s = time.monotonic()
        while True:
            try:
                item = self._waiting.get(timeout=self._config.flush_s)
            except Empty:
                item = _NOTHING
            if item is None:
                return
            if not self.failure:
                self._guard(self._write, item)
            if isinstance(item, _Message):
                self._done_bytes += item.size
            if not self.failure and time.monotonic() - flushed_s >= self._config.flush_s:
                self._guard(self._flush)
                flushed_s = time.monotonic()

    def _guard(self, step: Callable[..., None], *args: object) -> None:
        """Do one step; turn what the disk or the data say into the reason of the end."""
        try:
            step(*args)
        except EpisodeError as error:
            self.failure = str(error)
        except OSError as error:
            self.failure = f"cannot write {self.directory}: {error}; free some space or choose another disk"
            self._bag.abort()

    def _write(self, item: "_Message | Topic") -> None:
        if isinstance(item, Topic):
            self._channels.append(self._bag.add(item))
            return
        if item.stream < 0:
            return
        counts = self._counts[item.stream]
        data = item.data if isinstance(item.data, bytes) else item.data.result()
        self._bag.write(self._channels[item.stream], item.log_ns, data, item.publish_ns)
        counts.written += 1
        counts.bytes += len(data)

    def _flush(self) -> None:
        self._bag.flush()
        self._check_space(self.directory)

    def _check_space(self, directory: Path) -> None:
        existing = next(folder for folder in (directory, *directory.parents) if folder.exists())
        free_mb = shutil.disk_usage(existing).free / 1e6
        if free_mb < self._config.free_mb:
            raise EpisodeError(
                f"only {free_mb:.0f} MB are left on the disk of {directory} (limit {self._config.free_mb} MB); "
                "free some space or choose another disk"
            )
