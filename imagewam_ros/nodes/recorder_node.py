# SPDX-License-Identifier: Apache-2.0
"""Record episodes: every message as it came, serialised, into one bag per episode.

Services start, stop and label; buttons of a joystick do the same. Subscriptions live while the
node is active, so an episode loses nothing at its start. Writing happens on a thread of its own.
"""

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Joy
from std_srvs.srv import Trigger

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.bag import rewrite_custom
from imagewam_ros.data.bag_recorder import Recording
from imagewam_ros.data.episode import CUSTOM_KEY, FIRST_SEED, Provenance
from imagewam_ros.data.interventions import Corrections
from imagewam_ros.msg import ActionChunk, EpisodeStatus, ExecutorEvent, SimStatus
from imagewam_ros.nodes import parameters, qos, topics
from imagewam_ros.nodes.diagnostics import OK
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.nodes.recorder_config import RecorderConfig
from imagewam_ros.nodes.recorder_topics import RawTopics
from imagewam_ros.nodes.spin import run
from imagewam_ros.srv import SetInstruction

LOOK_S = 0.5
"""How often topics are looked for, the disk's state is asked and the status is published."""


class RecorderNode(ManagedNode):
    """One episode at a time. State is EpisodeStatus's."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self._recording: Recording | None = None
        self._state, self._reason, self._label = EpisodeStatus.IDLE, "", ""
        self._directory: Path | None = None
        self._began_ns, self._ended_ns = 0, 0
        self._pressed: list[int] = []
        self._scene = SimStatus(seed=-1)

    def setup(self) -> None:
        """Read the robot, offer services. Raises ConfigError."""
        self._config = config = parameters.declare(self, RecorderConfig)
        self._robot = load_embodiment(config.robot)
        self._instruction = config.instruction
        images = [topics.compressed(c.topic) if config.compressed else c.topic for c in self._robot.cameras]
        self._images = [self.resolve_topic_name(name) for name in images]
        self._joints = self.resolve_topic_name(topics.JOINT_STATES)
        self._action = self.resolve_topic_name(config.action_topic)
        self._event = self.resolve_topic_name(topics.EVENT)
        self._required = [*self._images, self._joints, self._action]
        others = [self._event, *(self.resolve_topic_name(name) for name in config.topics if name)]
        names = dict.fromkeys([*self._required, *others])
        self._raw = RawTopics(self, list(names), self._on_message)
        self.cleanup.callback(self._raw.close)
        self._status_out = self.publisher(EpisodeStatus, topics.EPISODE_STATUS, qos.STATUS)
        for name, action in self._actions().items():
            self.serve(Trigger, f"{topics.EPISODE}/{name}", lambda *_, action=action: action())
        self.serve(SetInstruction, topics.EPISODE_INSTRUCTION, self._on_instruction)
        self.subscribe(Joy, topics.JOY, self._on_joy, qos.JOY)
        self.subscribe(SimStatus, topics.SIM_STATUS, self._on_scene, qos.STATUS)
        self.every(LOOK_S, self._look)
        self._publish_status()

    def start(self) -> None:
        """Subscribe to what is published already."""
        self._raw.look()

    def stop(self, reason: str) -> None:
        """End a running episode without a label; it can still be labelled by hand."""
        if self._recording:
            self._end("", reason)
        self._raw.close()

    def _actions(self) -> dict[str, Callable[[], str]]:
        return {
            "start": self._begin,
            "stop": lambda: self._end("", ""),
            "success": lambda: self._judge("success"),
            "failure": lambda: self._judge("failure"),
            "discard": lambda: self._judge("discard"),
        }

    def _begin(self) -> str:
        """Start an episode; raises EpisodeError saying what is missing."""
        if not self.is_active:
            raise EpisodeError("the recorder is not active; activate it first")
        if self._recording:
            raise EpisodeError(f"already recording {self._directory}; stop or label it first")
        if not (self._instruction or self._scene.instruction):
            raise EpisodeError(f"no instruction; set one with {self.resolve_topic_name(topics.EPISODE_INSTRUCTION)}")
        if silent := self._raw.silent(self._required):
            raise EpisodeError(f"nobody publishes {', '.join(silent)}; start the drivers, or name other topics")
        self._raw.look()
        now = datetime.now().astimezone()
        directory = Path(self._config.directory) / now.strftime("episode_%Y%m%d_%H%M%S_%f")
        about = self._provenance()
        recording = Recording(directory, _custom(about), self._config.recording)
        self._directory, self._about, self._moved = directory, about, Corrections()
        self._streams = {name: recording.add(topic) for name, topic in self._raw.topics.items()}
        for name, (data, published_ns) in self._raw.latched.items():
            recording.put(self._streams[name], self.get_clock().now().nanoseconds, data, published_ns)
        self._label, self._state, self._reason = "", EpisodeStatus.RECORDING, _caution(about)
        self._began_ns, self._ended_ns = self.steady.now().nanoseconds, 0
        self._recording = recording
        self._publish_status()
        return str(self._directory)

    def _end(self, label: str, reason: str) -> str:
        """Make the running episode whole; raises EpisodeError when there is none or it cannot be finished."""
        recording = self._recording
        if not recording:
            raise EpisodeError("nothing is being recorded; start an episode first")
        self._recording, self._ended_ns, self._label = None, self.steady.now().nanoseconds, label
        self._state, self._reason = EpisodeStatus.SAVING, reason
        self._last = recording
        self._publish_status()
        moved = self._moved
        self._about = dataclasses.replace(
            self._about, label=label, interventions=moved.spans, policy_ran=moved.policy_ran
        )
        try:
            report = recording.stop(lambda: _custom(self._about))
        except EpisodeError as error:
            self._state, self._reason = EpisodeStatus.FAILED, str(error)
            raise
        else:
            self._state = EpisodeStatus.FAILED if recording.failure else EpisodeStatus.IDLE
            self._reason = recording.failure or reason
        finally:
            self._publish_status()
        self._tell(report)
        return f"{self._directory} {label or 'unlabelled'}"

    def _judge(self, label: str) -> str:
        """Stop and label the running episode, or label the last one anew."""
        if self._recording:
            return self._end(label, "")
        if not self._directory:
            raise EpisodeError(f"no episode to label {label}; start one first")
        self._about, self._label = dataclasses.replace(self._about, label=label), label
        rewrite_custom(self._directory, _custom(self._about))
        self._publish_status()
        return f"{self._directory} {label}"

    def _on_message(self, name: str, data: bytes, published_ns: int, sequence: int) -> None:
        recording = self._recording
        if recording is None or name not in self._streams:
            return
        recording.put(self._streams[name], self.get_clock().now().nanoseconds, data, published_ns, sequence)
        kind = self._raw.topics[name].msgtype
        if not self._about.contract_hash and kind == "imagewam_ros/msg/ActionChunk":
            chunk = deserialize_message(data, ActionChunk)
            self._about = dataclasses.replace(self._about, contract_hash=chunk.contract_hash)
        elif name == self._event:
            self._moved.hear(deserialize_message(data, ExecutorEvent))

    def _on_instruction(self, request: Any, response: Any) -> str:
        if self._recording:
            raise EpisodeError("an episode is being recorded; its instruction stays")
        self._instruction = request.instruction
        self._publish_status()
        return f"next episodes: {request.instruction!r}"

    def _on_scene(self, message: SimStatus) -> None:
        self._scene = message

    def _on_joy(self, message: Joy) -> None:
        """Act on the buttons that went down since the last message."""
        went_down = [i for i, on in enumerate(message.buttons) if on and i not in self._pressed]
        self._pressed = [i for i, on in enumerate(message.buttons) if on]
        for name, action in self._actions().items():
            if getattr(self._config.buttons, name) in went_down:
                action()

    def _look(self) -> None:
        """Find topics that appeared, end an episode that ended itself, and say how it goes."""
        if self.is_active:
            appeared = self._raw.look()
            if self._recording:
                self._streams |= {topic.name: self._recording.add(topic) for topic in appeared}
        if self._recording and self._recording.failure:
            self.complain(self._recording.failure)
            self._end("", "")
        self._publish_status()

    def _provenance(self) -> Provenance:
        config = self._config
        suffix = "/compressed" if config.recording.image_format != "raw" and not config.compressed else ""
        cameras = zip((camera.name for camera in self._robot.cameras), self._images, strict=True)
        return Provenance(
            robot=self._robot.name,
            instruction=self._instruction or self._scene.instruction,
            joint_names=self._robot.joint_names,
            cameras=tuple((name, topic + suffix) for name, topic in cameras),
            period_ns=round(config.period_s * 1e9),
            first_row_offset_periods=config.first_row_offset_periods,
            task=config.task or self._scene.task,
            seed=self._scene.seed,
            operator=config.operator,
            joint_topic=self._joints,
            action_topic=self._action,
            latency_ns=tuple((camera.name, camera.latency_ns) for camera in self._robot.cameras if camera.latency_s),
        )

    def _tell(self, report: dict[str, Any]) -> None:
        """Say on /diagnostics what every topic gave."""
        values = {
            name: f"{c['written']} written, {c['dropped']} dropped, {c['lost']} lost, {c['rate_hz']:.1f} Hz"
            for name, c in report["topics"].items()
        }
        if not self._last.failure:
            self.diagnostics.set(OK, f"{self._directory} is whole", values)

    def _publish_status(self) -> None:
        end_ns = self._ended_ns or self.steady.now().nanoseconds
        recording = self._recording or getattr(self, "_last", None)
        message = EpisodeStatus(
            state=self._state,
            reason=self._reason,
            episode=str(self._directory or ""),
            instruction=self._instruction or self._scene.instruction,
            label=self._label,
            duration_s=(end_ns - self._began_ns) / 1e9 if self._began_ns else 0.0,
            messages=recording.messages if recording else 0,
            bytes=recording.written_bytes if recording else 0,
            dropped=recording.dropped if recording else 0,
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._status_out.publish(message)


def _custom(about: Provenance) -> dict[str, str]:
    return {CUSTOM_KEY: json.dumps(dataclasses.asdict(about))}


def _caution(about: Provenance) -> str:
    """What to know of an episode before it is recorded, empty where there is nothing."""
    if not 0 <= about.seed < FIRST_SEED:
        return ""
    return f"the scene's seed {about.seed} is one of evaluation, training refuses it; reset to one from {FIRST_SEED} up"


def main() -> int:
    """Run the node."""
    return run(RecorderNode)
