# SPDX-License-Identifier: Apache-2.0
"""Label a recording by hand: one that was recovered, one that nobody judged, or a bag of `ros2 bag record`."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import EpisodeError, unknown_name
from imagewam_ros.core.schema import Source
from imagewam_ros.data.bag import read_information, rewrite_custom
from imagewam_ros.data.bag_read import messages
from imagewam_ros.data.bag_types import typestore
from imagewam_ros.data.episode import CUSTOM_KEY, JOINT_TOPIC, Provenance, read_provenance
from imagewam_ros.data.interventions import Corrections, event_topic

LABELS = ("success", "failure", "discard")
CHUNK, STATUS = "imagewam_ros/msg/ActionChunk", "imagewam_ros/msg/ExecutorStatus"


def label_episode(directory: Path, label: str, instruction: str = "") -> Provenance:
    """Change an episode's label, and its instruction where one is given; look anew who moved the arms.

    Raises EpisodeError for an unknown label or a folder that is no episode of ours.
    """
    if label not in LABELS:
        raise EpisodeError(unknown_name("label", label, LABELS))
    about = read_provenance(directory)
    about = dataclasses.replace(about, label=label, instruction=instruction or about.instruction)
    about = _with_corrections(about, directory)
    rewrite_custom(directory, {CUSTOM_KEY: json.dumps(dataclasses.asdict(about))})
    return about


def is_foreign(directory: Path) -> bool:
    """Whether a whole bag was recorded by another program. Raises EpisodeError where there is no bag."""
    return CUSTOM_KEY not in read_information(directory)["custom_data"]


def adopt(
    directory: Path,
    robot: Embodiment,
    instruction: str,
    action_topic: str,
    period_ns: int,
    first_row_offset_periods: float,
) -> Provenance:
    """Say of a bag that another program recorded what an episode of ours says of itself.

    Cameras may be there raw or compressed, under the robot's topics with any leading namespace.
    Raises EpisodeError naming topics that are missing, also where a human took over and no event says when.
    """
    found = _kinds(directory)
    cameras = tuple((camera.name, _match(camera.topic, found, directory)) for camera in robot.cameras)
    about = Provenance(
        robot=robot.name,
        instruction=instruction,
        joint_names=robot.joint_names,
        cameras=cameras,
        period_ns=period_ns,
        first_row_offset_periods=first_row_offset_periods,
        joint_topic=_match(JOINT_TOPIC, found, directory),
        action_topic=_match(action_topic, found, directory),
        latency_ns=tuple((camera.name, camera.latency_ns) for camera in robot.cameras if camera.latency_s),
    )
    if event_topic(found, about.joint_topic):
        about = _with_corrections(about, directory)
    else:
        about = dataclasses.replace(about, policy_ran=_policy_seen(directory, found))
    rewrite_custom(directory, {CUSTOM_KEY: json.dumps(dataclasses.asdict(about))})
    return about


def _with_corrections(about: Provenance, directory: Path) -> Provenance:
    """Say who moved the arms as the executor's events tell it; unchanged where none were recorded."""
    topic = event_topic(_kinds(directory), about.joint_topic)
    if not topic:
        return about
    found = Corrections.recorded(message.data for message in messages(directory, [topic]))
    return dataclasses.replace(about, interventions=found.spans, policy_ran=found.policy_ran)


def _policy_seen(directory: Path, kinds: Mapping[str, str]) -> bool:
    """Whether a bag without events holds a policy's chunks. Raises EpisodeError where a human took over."""
    seen = False
    for message in messages(directory, [topic for topic, kind in kinds.items() if kind in (CHUNK, STATUS)]):
        value: Any = typestore().deserialize_cdr(message.data, message.msgtype)
        chunk = message.msgtype == CHUNK
        if (chunk and value.source == Source.TAKEOVER) or (not chunk and value.taken_over):
            raise EpisodeError(
                f"{directory}: a human took over, as {message.topic} says, but the bag holds no executor/event, by "
                "which corrections are found; record it too, or leave the bag out"
            )
        seen |= chunk and value.source < Source.TELEOP
    return seen


def _kinds(directory: Path) -> dict[str, str]:
    """Type of each recorded topic."""
    topics = [topic["topic_metadata"] for topic in read_information(directory)["topics_with_message_count"]]
    return {topic["name"]: topic["type"] for topic in topics}


def _match(topic: str, found: Collection[str], directory: Path) -> str:
    """Return the recorded name of a topic: the one with the shortest namespace, raw before compressed."""
    for wanted in (topic, f"{topic}/compressed"):
        names = [name for name in found if f"/{name.lstrip('/')}".endswith(f"/{wanted.lstrip('/')}")]
        shortest = min((name.count("/") for name in names), default=0)
        names = sorted(name for name in names if name.count("/") == shortest)
        if len(names) == 1:
            return names[0]
        if names:
            raise EpisodeError(f"{directory} holds {', '.join(names)}; which is {topic}? record one robot per bag")
    raise EpisodeError(f"{directory} holds no {topic}; found {', '.join(sorted(found)) or 'nothing'}")
