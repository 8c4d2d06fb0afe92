# SPDX-License-Identifier: Apache-2.0
"""What an episode's streams hold without their pixels, and its frames one by one without the memory.

Reads only stamps and joints in the first pass; images are decoded in the second, and only those
that a frame wants. The pairing rule is `core.sync`'s, as it is for the live policy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.errors import EmbodimentMismatch, EpisodeError, StaleObservation
from imagewam_ros.core.joints import JointMerge
from imagewam_ros.core.schema import Floats, Image
from imagewam_ros.core.sync import SyncConfig, frames, nearest
from imagewam_ros.data.bag_images import COMPRESSED, RAW, to_rgb
from imagewam_ros.data.bag_read import messages
from imagewam_ros.data.bag_types import typestore
from imagewam_ros.data.episode import Provenance, read_provenance

Stamps = NDArray[np.int64]
JOINTS, COMMAND = "sensor_msgs/msg/JointState", "imagewam_ros/msg/ExecutorCommand"


@dataclass(frozen=True)
class Motion:
    """A stream of joint vectors: stamps_ns (samples,) ascending, positions (samples, joints), rad or m."""

    stamps_ns: Stamps
    positions: Floats


@dataclass(frozen=True)
class Streams:
    """One episode without its pixels. Joint vectors are in the provenance's order.

    images maps each camera to the stamps of its images. dense says that the actions are samples
    of a command stream, to be interpolated, and not one target per frame. received_ns is the
    time of arrival of every message, by topic. late counts, by topic, the messages whose stamp was
    not newer than the one before of the same camera, or of the same joints: drivers may share a topic.
    """

    directory: Path
    provenance: Provenance
    images: Mapping[str, Stamps]
    joints: Motion
    actions: Motion
    dense: bool
    received_ns: Mapping[str, Stamps]
    late: Mapping[str, int]


@dataclass(frozen=True)
class Plan:
    """The frames of one episode without their pixels, oldest first.

    stamps_ns (frames,); image_index maps each camera to (frames,) places in its stream;
    positions and actions are (frames, joints). rejected counts reference images without frame.
    """

    stamps_ns: Stamps
    image_index: Mapping[str, NDArray[np.intp]]
    positions: Floats
    actions: Floats
    rejected: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def part(self, rows: "slice | NDArray[np.intp]") -> "Plan":
        """Return some of the frames."""
        index = {name: places[rows] for name, places in self.image_index.items()}
        return Plan(self.stamps_ns[rows], index, self.positions[rows], self.actions[rows], self.rejected)


def header_stamp_ns(data: bytes | memoryview) -> int:
    """Return the stamp of a serialised message that begins with a std_msgs/Header."""
    order: Any = "little" if data[1] & 1 else "big"
    return int.from_bytes(data[4:8], order, signed=True) * 10**9 + int.from_bytes(data[8:12], order)


def read_streams(directory: Path) -> Streams:
    """Read everything but pixels. Raises EpisodeError naming what is missing or damaged."""
    about = read_provenance(directory)
    cameras = {topic: name for name, topic in about.cameras}
    stamps: dict[str, list[int]] = {name: [] for name, _ in about.cameras}
    samples: dict[str, list[tuple[int, Any]]] = {about.joint_topic: [], about.action_topic: []}
    received: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    for topic, msgtype, log_ns, data in messages(directory):
        received.setdefault(topic, []).append(log_ns)
        kinds[topic] = msgtype
        if topic in cameras:
            _keep_newer(stamps[cameras[topic]], header_stamp_ns(data))
        elif topic in samples:
            samples[topic].append(_sample(data, msgtype))
    silent = [f"{name} ({topic})" for topic, name in cameras.items() if not stamps[name]]
    roles = (("joints", about.joint_topic), ("action", about.action_topic))
    silent += [f"{role} ({topic})" for role, topic in roles if not samples[topic]]
    if silent:
        found = ", ".join(sorted(received)) or "no messages at all"
        raise EpisodeError(
            f"{directory} holds no samples of {', '.join(silent)}; found {found}. Was the topic recorded?"
        )
    joints, actions = (_motion(samples[topic], about, directory) for _, topic in roles)
    late = {topic: len(received[topic]) - len(stamps[name]) for topic, name in cameras.items()}
    late |= {topic: _late(messages, about.joint_names) for topic, messages in samples.items()}
    return Streams(
        directory=directory,
        provenance=about,
        images={name: np.array(values, dtype=np.int64) for name, values in stamps.items()},
        joints=joints,
        actions=actions,
        dense=kinds[about.action_topic] == COMMAND,
        received_ns={topic: np.array(values, dtype=np.int64) for topic, values in received.items()},
        late={topic: count for topic, count in late.items() if count},
    )


def plan_frames(streams: Streams, config: SyncConfig | None = None) -> Plan:
    """Pair the streams by the rule that serves the live policy, and give every frame its action.

    Each stream's latency is taken off its stamps first. A dense action is the command of the
    instant at which the first row of a chunk is due. Raises EpisodeError when no frame remains.
    """
    config, about = config or SyncConfig(), streams.provenance
    latency = dict(about.latency_ns)
    images = {name: stamps - latency.get(name, 0) for name, stamps in streams.images.items()}
    joint_stamps = streams.joints.stamps_ns - latency.get("joints", 0)
    paired = frames(images, joint_stamps, streams.joints.positions, config)
    shutters = np.array([frame.stamp_ns for frame in paired], dtype=np.int64)
    acted, actions = _actions(streams, shutters)
    reference = next(iter(images.values()))
    rejected = {"without partner image or joints": len(reference) - len(paired), "without action": int((~acted).sum())}
    if not acted.any():
        raise EpisodeError(
            f"{streams.directory} has no frame with all cameras, joints and an action "
            f"({', '.join(f'{count} {why}' for why, count in rejected.items())}); are the stamps in one clock?"
        )
    rows = np.flatnonzero(acted)
    return Plan(
        stamps_ns=shutters[rows],
        image_index={name: np.array([paired[row].image_index[name] for row in rows]) for name in images},
        positions=np.stack([paired[row].positions for row in rows]),
        actions=actions[rows],
        rejected={why: count for why, count in rejected.items() if count},
    )


def frame_images(directory: Path, plan: Plan) -> Iterator[dict[str, Image]]:
    """Yield the images of one frame after the other, by camera: uint8 RGB [H, W, 3].

    Holds no more images in memory than lie between the cameras. Raises EpisodeError when the
    file is damaged.
    """
    cameras = {topic: name for name, topic in read_provenance(directory).cameras}
    wanted: dict[str, dict[int, list[int]]] = {name: {} for name in cameras.values()}
    for name, places in plan.image_index.items():
        for row, place in enumerate(places.tolist()):
            wanted[name].setdefault(place, []).append(row)
    seen: dict[str, list[int]] = {name: [] for name in cameras.values()}
    waiting: dict[int, dict[str, Image]] = {}
    row = 0
    for topic, msgtype, _, data in messages(directory, cameras):
        name = cameras[topic]
        if not _keep_newer(seen[name], header_stamp_ns(data)):
            continue
        rows = wanted[name].get(len(seen[name]) - 1, ())
        if rows:
            image = _decode_image(data, msgtype)
            for place in rows:
                waiting.setdefault(place, {})[name] = image
        while len(waiting.get(row, ())) == len(cameras):
            yield waiting.pop(row)
            row += 1
    if row != len(plan):
        raise EpisodeError(f"{directory} gave images for {row} of {len(plan)} frames; did it change meanwhile?")


def _keep_newer(stamps: list[int], stamp_ns: int) -> bool:
    """Append a stamp when it is newer than the last one, as the live path does."""
    if stamps and stamp_ns <= stamps[-1]:
        return False
    stamps.append(stamp_ns)
    return True


def _decode_image(data: bytes, msgtype: str) -> Image:
    if msgtype not in (RAW, COMPRESSED):
        raise EpisodeError(f"a camera's messages are {msgtype}, expected {RAW} or {COMPRESSED}")
    return to_rgb(typestore().deserialize_cdr(data, msgtype))


def _sample(data: bytes, msgtype: str) -> tuple[int, Any]:
    """Time that a joint vector is meant for, and its message."""
    message: Any = typestore().deserialize_cdr(data, msgtype)
    time = message.nominal if msgtype == COMMAND else message.header.stamp
    return time.sec * 10**9 + time.nanosec, message


def _motion(samples: list[tuple[int, Any]], about: Provenance, directory: Path) -> Motion:
    """Joint vectors in the provenance's order, merged and filtered as the live path does."""
    merge, kept = JointMerge(about.joint_names), list[Floats]()
    stamps: list[int] = []
    try:
        for stamp_ns, message in samples:
            merge.add(stamp_ns, _names(message), message.position, message.velocity)
            if merge.complete and _keep_newer(stamps, merge.state.stamp_ns):
                kept.append(merge.state.position)
        if not kept:
            kept.append(merge.state.position)  # raises, because a joint never came
    except (EmbodimentMismatch, StaleObservation) as error:
        raise EpisodeError(f"{directory}: {error}") from error
    return Motion(np.array(stamps, dtype=np.int64), np.stack(kept))


def _late(samples: list[tuple[int, Any]], joint_names: tuple[str, ...]) -> int:
    """Messages whose stamp is not newer than the one before of the same joints. Those of other joints do not count."""
    seen: dict[tuple[str, ...], list[int]] = {}
    late = 0
    for stamp_ns, message in samples:
        ours = tuple(name for name in _names(message) if name in joint_names)
        late += bool(ours) and not _keep_newer(seen.setdefault(ours, []), stamp_ns)
    return late


def _names(message: Any) -> list[str]:
    return list(message.joint_names if hasattr(message, "joint_names") else message.name)


def _actions(streams: Streams, shutters: Stamps) -> tuple[NDArray[np.bool_], Floats]:
    """Which frames have an action, and (frames, joints) actions."""
    about, known = streams.provenance, streams.actions
    if not streams.dense:
        rows = nearest(known.stamps_ns, shutters, about.period_ns // 2)
        return rows >= 0, known.positions[rows]
    due = shutters + round(about.first_row_offset_periods * about.period_ns)
    after = np.searchsorted(known.stamps_ns, due).clip(1, max(len(known.stamps_ns) - 1, 1))
    gap = np.diff(known.stamps_ns)[after - 1] if len(known.stamps_ns) > 1 else np.zeros(len(due), np.int64)
    inside = (due >= known.stamps_ns[0]) & (due <= known.stamps_ns[-1]) & (gap > 0) & (gap <= about.period_ns)
    columns = [np.interp(due, known.stamps_ns, column) for column in known.positions.T]
    return inside, np.stack(columns, axis=1)
