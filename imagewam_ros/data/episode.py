# SPDX-License-Identifier: Apache-2.0
"""One demonstration or trial on disk: a rosbag2 folder with MCAP storage and standard messages.

`ros2 bag` and Foxglove read it. rosbag2's metadata.yaml is written last, by `finish`, and holds
what the messages cannot say (label, instruction, robot, seed, versions), so a recording that was
cut off has no metadata and is never taken for a whole one.
"""

import dataclasses
import json
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, final

import numpy as np

from imagewam_ros.core.config import build
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import EpisodeError, unknown_name
from imagewam_ros.core.schema import Floats, Image, JointState
from imagewam_ros.data.bag import BagWriter, Topic, read_information
from imagewam_ros.data.bag_images import to_rgb
from imagewam_ros.data.bag_read import messages
from imagewam_ros.data.bag_types import typestore

LABELS = ("success", "failure")
FIRST_SEED = 1_000_000
"""Demonstrations use scenes of seeds from here up, evaluations those below."""
JOINT_TOPIC = "joint_states"
ACTION_TOPIC = "operator/target"
"""The operator's joint targets: a JointState whose position is due one period after its stamp."""

CUSTOM_KEY = "imagewam"
IMAGE, JOINTS = "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState"


@dataclass(frozen=True)
class Provenance:
    """What is known about an episode besides its messages.

    cameras maps camera names to topics, as pairs. first_row_offset_periods is 1 where the action
    of a frame is the target one period after it, 0 where it is the command issued at it.
    seed is the scene's, -1 where there is none. action_topic carries one target per frame, or the
    commands that were sent (ExecutorCommand). latency_ns maps streams (a camera, "joints") to how
    much later than the instant that they show their stamps are, as pairs. interventions are first and last
    stamps of what a human or an expert corrected while a policy ran; see data/interventions.py. policy_ran says
    that chunks of a policy moved the arms.
    """

    robot: str
    instruction: str
    joint_names: tuple[str, ...]
    cameras: tuple[tuple[str, str], ...]
    period_ns: int
    first_row_offset_periods: float
    task: str = ""
    seed: int = -1
    operator: str = ""
    label: str = ""
    contract_hash: str = ""
    joint_topic: str = JOINT_TOPIC
    action_topic: str = ACTION_TOPIC
    latency_ns: tuple[tuple[str, int], ...] = ()
    interventions: tuple[tuple[int, int], ...] = ()
    policy_ran: bool = False
    software: tuple[tuple[str, str], ...] = field(default_factory=lambda: software_versions())

    @property
    def unaided(self) -> bool:
        """Whether a policy did it alone, so that nobody showed anything."""
        return self.policy_ran and not self.interventions

    @classmethod
    def of(cls, robot: Embodiment, instruction: str, period_ns: int, **more: Any) -> "Provenance":
        """Return the provenance of a recording on `robot`; `more` are the remaining fields."""
        topics = tuple((camera.name, camera.topic) for camera in robot.cameras)
        offset = more.pop("first_row_offset_periods", 1.0)
        return cls(robot.name, instruction, robot.joint_names, topics, period_ns, offset, **more)


class Sample(NamedTuple):
    """One message of an episode: its stream (a camera's name, "joints" or "action") and value.

    value is an image uint8 RGB [H, W, 3] or a JointState.
    """

    stream: str
    stamp_ns: int
    value: Image | JointState


@final
class EpisodeWriter:
    """Write one episode. `finish` makes it whole; leaving the `with` block without it does not."""

    def __init__(self, directory: Path, provenance: Provenance) -> None:
        """Create `directory`. Raises EpisodeError when it exists."""
        self.directory, self.provenance = directory, provenance
        self._bag = BagWriter(directory, _custom(provenance), "zstd")
        topics = [(name, Topic(topic, IMAGE)) for name, topic in provenance.cameras]
        topics += [
            ("joints", Topic(provenance.joint_topic, JOINTS)),
            ("action", Topic(provenance.action_topic, JOINTS)),
        ]
        self._channels = {stream: self._bag.add(topic) for stream, topic in topics}

    def image(self, camera: str, stamp_ns: int, image: Image) -> None:
        """Write one image uint8 RGB [H, W, 3]. Raises EpisodeError for an unknown camera or another shape."""
        if camera not in dict(self.provenance.cameras):
            raise EpisodeError(unknown_name("camera", camera, dict(self.provenance.cameras)))
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise EpisodeError(
                f"camera {camera!r}: expected uint8 RGB [H, W, 3], found {image.dtype} {list(image.shape)}"
            )
        height, width = image.shape[:2]
        message = typestore().types[IMAGE](
            header=_header(stamp_ns, camera),
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
            data=np.ascontiguousarray(image).reshape(-1),
        )
        self._write(camera, stamp_ns, IMAGE, message)

    def joints(self, state: JointState) -> None:
        """Write the measured joints."""
        message = _joint_message(state.stamp_ns, state.joint_names, state.position, state.velocity)
        self._write("joints", state.stamp_ns, JOINTS, message)

    def action(self, stamp_ns: int, positions: Floats) -> None:
        """Write the target (joints,) of the frame at `stamp_ns`, in the robot's order."""
        message = _joint_message(stamp_ns, self.provenance.joint_names, positions, np.zeros(0))
        self._write("action", stamp_ns, JOINTS, message)

    def finish(self, label: str) -> None:
        """Label the episode and make it whole. Raises EpisodeError for an unknown label or a full disk."""
        if label not in LABELS:
            raise EpisodeError(unknown_name("label", label, LABELS))
        self.provenance = dataclasses.replace(self.provenance, label=label)
        try:
            self._bag.close(_custom(self.provenance))
        except OSError as error:
            raise self._unwritable(error) from error

    def discard(self) -> None:
        """Remove what was written."""
        self._bag.abort()
        shutil.rmtree(self.directory)

    def __enter__(self) -> "EpisodeWriter":
        """Return self."""
        self._bag.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the episode cut off unless it is finished."""
        self._bag.__exit__(kind, error, trace)

    def _write(self, stream: str, stamp_ns: int, kind: str, message: Any) -> None:
        data = bytes(typestore().serialize_cdr(message, kind))
        try:
            self._bag.write(self._channels[stream], stamp_ns, data)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> EpisodeError:
        return EpisodeError(f"cannot write {self.directory}: {error}; free some space or choose another disk")


class EpisodeReader:
    """Read one whole episode."""

    def __init__(self, directory: Path) -> None:
        """Read the provenance. Raises EpisodeError when the episode is missing, unfinished or not ours."""
        self.directory = directory
        self.provenance = read_provenance(directory)
        self._streams = {topic: name for name, topic in self.provenance.cameras}
        self._streams |= {self.provenance.joint_topic: "joints", self.provenance.action_topic: "action"}

    def samples(self, streams: Collection[str] | None = None) -> Iterator[Sample]:
        """Yield samples in the order of their stamps, of `streams` or of all.

        Raises EpisodeError when the file is damaged.
        """
        wanted = [topic for topic, stream in self._streams.items() if streams is None or stream in streams]
        for message in messages(self.directory, wanted):
            value = typestore().deserialize_cdr(message.data, message.msgtype)
            yield _sample(self._streams[message.topic], value)


def read_provenance(directory: Path) -> Provenance:
    """Return an episode's provenance. Raises EpisodeError saying what is wrong with the folder."""
    custom = read_information(directory)["custom_data"]
    if CUSTOM_KEY not in custom:
        raise EpisodeError(
            f"{directory} is a bag without {CUSTOM_KEY!r} in its custom data; label it by `imagewam record --label`"
        )
    try:
        about = json.loads(custom[CUSTOM_KEY])
    except ValueError as error:
        raise EpisodeError(
            f"{directory}: {CUSTOM_KEY!r} in its custom data is damaged: {error}; leave it out"
        ) from error
    return build(Provenance, about, str(directory))


def find_episodes(root: Path) -> list[Path]:
    """Return the folders of the whole episodes under `root`, sorted. Raises EpisodeError when there is none."""
    found = sorted(path.parent for path in root.glob("*/metadata.yaml"))
    if not found:
        cut = len(list(root.glob("*/*.mcap")))
        raise EpisodeError(f"no whole episode in {root} ({cut} cut off); record some with `imagewam record`")
    return found


def software_versions() -> tuple[tuple[str, str], ...]:
    """Versions of what shapes an episode, as pairs."""
    return tuple((name, _version(name)) for name in ("imagewam_ros", "mujoco", "numpy", "rosbags"))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _sample(stream: str, message: Any) -> Sample:
    stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    if hasattr(message, "data"):
        return Sample(stream, stamp_ns, to_rgb(message))
    names = message.joint_names if hasattr(message, "joint_names") else message.name
    velocity = message.velocity if len(message.velocity) else np.zeros(len(message.position))
    return Sample(stream, stamp_ns, JointState(stamp_ns, tuple(names), message.position, velocity))


def _custom(provenance: Provenance) -> dict[str, str]:
    return {CUSTOM_KEY: json.dumps(dataclasses.asdict(provenance))}


def _header(stamp_ns: int, frame: str) -> Any:
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)


def _joint_message(stamp_ns: int, names: tuple[str, ...], position: Floats, velocity: Floats) -> Any:
    return typestore().types[JOINTS](
        header=_header(stamp_ns, ""),
        name=list(names),
        position=np.asarray(position, np.float64),
        velocity=np.asarray(velocity, np.float64),
        effort=np.zeros(0),
    )
