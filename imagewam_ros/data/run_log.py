# SPDX-License-Identifier: Apache-2.0
"""What a bag holds of the executor: chunks, commands, events and parameters, as values of core.

Any rosbag2 folder will do, whole or not labelled. Messages are read by the definitions that the bag
carries, so a bag of an older release is read as it was written.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from imagewam_ros.core.errors import EmbodimentMismatch, EpisodeError
from imagewam_ros.core.schema import ActionChunk, Command, Floats, Source
from imagewam_ros.data.bag_read import DAMAGE, messages
from imagewam_ros.data.chunk_message import read_chunk, stamp_ns
from imagewam_ros.data.episode import read_provenance

CHUNK, COMMAND = "imagewam_ros/msg/ActionChunk", "imagewam_ros/msg/ExecutorCommand"
EVENT, PARAMETERS, JOINTS = "imagewam_ros/msg/ExecutorEvent", "std_msgs/msg/String", "sensor_msgs/msg/JointState"
PARAMETERS_TOPIC, JOINTS_TOPIC = "executor/parameters", "joint_states"
NO_CHUNK = 255


class Heard(NamedTuple):
    """A chunk and when the recorder received it, ns."""

    log_ns: int
    chunk: ActionChunk


class Event(NamedTuple):
    """What happened after the command of `tick`; chunk is (source, sequence) or nothing."""

    time_ns: int
    tick: int
    trigger: str
    state: int
    reason: str
    chunk: tuple[Source, int] | None = None


class Measured(NamedTuple):
    """One joint state message: time of its stamp in ns, names and positions (names,)."""

    stamp_ns: int
    names: tuple[str, ...]
    position: Floats


@dataclass(frozen=True)
class RunLog:
    """In order of reception. parameters are those of the executor node, empty where none were recorded."""

    directory: Path
    chunks: tuple[Heard, ...]
    commands: tuple[Command, ...]
    events: tuple[Event, ...]
    joints: tuple[Measured, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    robot: str = ""


def read_run(directory: Path, namespace: str = "") -> RunLog:
    """Read a bag's record of the executor in `namespace`.

    Raises EpisodeError when the folder is no bag, is damaged, or holds more than one executor.
    """
    store, kinds = _types(directory)
    cell = namespace.strip("/")
    chosen = {topic: kind for topic, kind in kinds.items() if not cell or topic.strip("/").startswith(f"{cell}/")}
    wanted = {kind: _only(kind, name, chosen, directory) for kind, name in WANTED.items()}
    found: dict[str, list[Any]] = {kind: [] for kind in WANTED}
    for message in messages(directory, [topic for topic in wanted.values() if topic]):
        value = store.deserialize_cdr(message.data, message.msgtype)
        found[message.msgtype].append(READERS[message.msgtype](value, message.log_ns))
    parameters = json.loads(found[PARAMETERS][-1]) if found[PARAMETERS] else {}
    return RunLog(
        directory=directory,
        chunks=tuple(found[CHUNK]),
        commands=tuple(found[COMMAND]),
        events=tuple(found[EVENT]),
        joints=tuple(found[JOINTS]),
        parameters=parameters,
        robot=str(parameters.get("robot", "")) or _robot(directory),
    )


def _types(directory: Path) -> tuple[Any, dict[str, str]]:
    """Return a type store of the bag's own definitions, and the type of each topic."""
    if not (directory / "metadata.yaml").exists():
        raise EpisodeError(
            f"no bag at {directory}: it has no metadata.yaml; check the path, or recover it with "
            f"`imagewam record --recover {directory}`"
        )
    store = get_typestore(Stores.ROS2_KILTED)
    try:
        with Reader(directory) as reader:
            for connection in reader.connections:
                if connection.msgtype in WANTED and connection.msgtype.startswith("imagewam_ros"):
                    store.register(_new(get_types_from_msg(connection.msgdef.data, connection.msgtype), store))
            return store, {connection.topic: connection.msgtype for connection in reader.connections}
    except (*DAMAGE, yaml.YAMLError) as error:
        raise EpisodeError(f"{directory} is damaged: {error}; record it again or leave it out") from error


def _new(types: Mapping[str, Any], store: Any) -> dict[str, Any]:
    return {name: fields for name, fields in types.items() if name not in store.types}


def _only(kind: str, name: str, topics: Mapping[str, str], directory: Path) -> str:
    """Return the one topic of a type whose name ends with `name`, or nothing."""
    found = [topic for topic, its in topics.items() if its == kind and topic.endswith(name)]
    if len(found) > 1:
        raise EpisodeError(f"{directory} holds {' and '.join(sorted(found))}; choose one cell with --namespace")
    return found[0] if found else ""


def _robot(directory: Path) -> str:
    """Name of the robot where the bag is an episode of ours."""
    try:
        return read_provenance(directory).robot
    except EpisodeError:
        return ""


def _chunk(message: Any, log_ns: int) -> Heard:
    try:
        return Heard(log_ns, read_chunk(message))
    except EmbodimentMismatch as error:
        raise EpisodeError(str(error)) from error


def _command(message: Any, log_ns: int) -> Command:
    names, motion = tuple(message.joint_names), (message.position, message.velocity, message.acceleration)
    return Command(message.tick, stamp_ns(message.nominal), message.period_ns, names, *motion)


def _event(message: Any, log_ns: int) -> Event:
    chunk = None if message.source == NO_CHUNK else (Source(message.source), int(message.sequence))
    return Event(
        stamp_ns(message.header.stamp), int(message.tick), message.trigger, int(message.state), message.reason, chunk
    )


def _joints(message: Any, log_ns: int) -> Measured:
    return Measured(stamp_ns(message.header.stamp), tuple(message.name), np.array(message.position, np.float64))


def _text(message: Any, log_ns: int) -> str:
    return str(message.data)


READERS = {CHUNK: _chunk, COMMAND: _command, EVENT: _event, JOINTS: _joints, PARAMETERS: _text}
WANTED = {
    CHUNK: "action_chunk",
    COMMAND: "executor/command",
    EVENT: "executor/event",
    JOINTS: JOINTS_TOPIC,
    PARAMETERS: PARAMETERS_TOPIC,
}
"""Types and how the names of their topics end."""
