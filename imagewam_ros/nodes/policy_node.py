# SPDX-License-Identifier: Apache-2.0
"""Observations to action chunks: one forward of the policy whenever the next chunk is due.

Inference has a thread of its own; what arrives meanwhile waits in the synchroniser, and the latest
observation wins. Without an instruction nothing is inferred, so the arms hold.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState as JointStateMsg

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.joints import JointMerge
from imagewam_ros.core.schema import ActionChunk, Image
from imagewam_ros.core.sync import SyncConfig, Synchroniser
from imagewam_ros.model.chunking import DelayForecast
from imagewam_ros.model.sampler import SamplerConfig
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.nodes import message_filters, messages, parameters, qos, topics
from imagewam_ros.nodes.diagnostics import OK
from imagewam_ros.nodes.inference import InferenceThread
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.nodes.run_policy import RunPolicyServer
from imagewam_ros.nodes.spin import leave, run
from imagewam_ros.srv import SetInstruction

WATCH_S = 0.2


@dataclass(frozen=True)
class PolicyNodeConfig:
    """checkpoint is a name in models/ or a path, device one of auto, cpu, cuda, cuda:N.

    replan_period_s is the time between the observations of two chunks. seed is that of the first
    chunk after an instruction; the next ones count on. cpu_threads 0 leaves the choice to torch.
    compressed subscribes to the compressed images. delay_quantile is the part of measured delays,
    from observation to published chunk, that chunks are committed for (sampling.chunking).
    """

    robot: str = "sim_cell"
    checkpoint: str = "tiny"
    device: str = "auto"
    instruction: str = ""
    replan_period_s: float = 0.4
    seed: int = 0
    cpu_threads: int = 1
    compressed: bool = False
    delay_quantile: float = 0.95
    sync: SyncConfig = field(default_factory=SyncConfig)
    sampling: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        if not 0 < self.delay_quantile <= 1:
            raise ConfigError(f"delay_quantile must be in (0, 1], found {self.delay_quantile}")
        if not 0.01 <= self.replan_period_s <= 10:
            raise ConfigError(f"replan_period_s must be 0.01 to 10, found {self.replan_period_s}")
        if self.cpu_threads < 0:
            raise ConfigError(f"cpu_threads must not be negative, found {self.cpu_threads}")


class PolicyNode(ManagedNode):
    """Pair what arrives, infer when due, publish the chunk."""

    def __init__(self) -> None:
        super().__init__("policy")
        self._instruction, self._instruction_id, self._next_seed = "", 0, 0
        self._last_ns = -1
        self._running: ActionChunk | None = None

    def setup(self) -> None:
        """Load and warm up, then subscribe."""
        self._config = config = parameters.declare(self, PolicyNodeConfig, changeable=("replan_period_s",))
        self._robot = load_embodiment(config.robot)
        self._joints = JointMerge.of(self._robot)
        self._inference = InferenceThread(
            config.checkpoint, self._robot, config.device, config.cpu_threads, config.sampling
        )
        self.cleanup.callback(self._inference.close)
        contract = self._inference.policy.contract
        cameras = {name: self._robot.camera(name) for name in contract.camera_names}
        self._half_frame_ns = round(0.5e9 / cameras[contract.camera_names[0]].rate_hz)
        image_topics = {
            name: topics.compressed(camera.topic) if config.compressed else camera.topic
            for name, camera in cameras.items()
        }
        self._sync = Synchroniser(image_topics, topics.JOINT_STATES, config.sync, self._decode)
        self._done = self.create_guard_condition(self.guarded(self._on_done))
        self.cleanup.callback(self.destroy_guard_condition, self._done)
        self._chunks_out = self.publisher(ActionChunkMsg, topics.CHUNK, qos.CHUNKS)
        kind = CompressedImage if config.compressed else ImageMsg
        for name, topic in image_topics.items():
            self._filter(kind, topic, qos.IMAGES, partial(self._on_image, name))
        self._filter(JointStateMsg, topics.JOINT_STATES, qos.JOINT_STATES, self._on_joint_state)
        self.serve(SetInstruction, topics.SET_INSTRUCTION, self._on_instruction)
        self.every(WATCH_S, self._watch)
        self._runs = RunPolicyServer(self, self._instruct)
        self.cleanup.callback(parameters.on_change(self, config, self._change))
        self._instruct(config.instruction, config.seed)

    def start(self) -> None:
        """Infer from now on."""
        self._sync.clear()
        self._joints = JointMerge.of(self._robot)
        self._last_ns = -1
        self._running, self._delays = None, DelayForecast(self._config.delay_quantile)
        self._watch_from_ns = self.steady.now().nanoseconds + 2 * self._config.sync.max_age_ns

    def stop(self, reason: str) -> None:
        """End a run and wait for the running inference; its chunk is not published."""
        self._runs.end(f"the policy stopped: {reason}")
        self._inference.outcome()

    def _filter(self, kind: type, topic: str, profile: Any, callback: Any) -> None:
        subscriber = message_filters.Subscriber(self, kind, topic, qos_profile=profile)
        subscriber.registerCallback(self.guarded(callback))
        self.cleanup.callback(self.destroy_subscription, subscriber.sub)

    def _decode(self, camera: str, message: ImageMsg | CompressedImage) -> Image:
        return messages.to_image(message, self._robot.camera(camera))

    def _on_image(self, camera: str, message: ImageMsg | CompressedImage) -> None:
        self.diagnostics.meter.count(camera)
        shutter_ns = messages.stamp_ns(message.header.stamp) - self._robot.camera(camera).latency_ns
        self._sync.add_image(camera, shutter_ns, message)
        self._consider()

    def _on_joint_state(self, message: JointStateMsg) -> None:
        if messages.merge_joint_state(message, self._joints) and self._joints.complete:
            state = self._joints.state
            self._sync.add_joints(state.stamp_ns, state.position)
            self._consider()

    def _consider(self) -> None:
        """Infer if the thread is free and an observation of the next chunk's time is complete."""
        if not self.is_active or not self._instruction or self._inference.busy:
            return
        due_ns = self._last_ns + round(self._config.replan_period_s * 1e9) - self._half_frame_ns
        if self._sync.newest(due_ns if self._last_ns >= 0 else -1) is None:
            return
        now_ns = self.get_clock().now().nanoseconds
        observation = self._sync.observation(now_ns, self._instruction, self._instruction_id)
        assert observation is not None
        self._last_ns = observation.stamp_ns
        seed, self._next_seed = self._next_seed, self._next_seed + 1
        self._forecast_ns = self._delays.forecast_ns
        self._inference.infer(observation, seed, self._take, self._done.trigger, self._running, self._forecast_ns)

    def _take(self, chunk: ActionChunk) -> None:
        """Publish a chunk, unless its instruction was changed meanwhile; called on the inference thread."""
        ready_ns = self.get_clock().now().nanoseconds
        if self.is_active and chunk.instruction_id == self._instruction_id:
            self._chunks_out.publish(messages.from_chunk(dataclasses.replace(chunk, ready_ns=ready_ns)))
            self._delays.record(ready_ns - chunk.stamp_ns)
            self._running = chunk
            self.diagnostics.meter.count("chunk")
            if chunk.committed_rows and ready_ns - chunk.stamp_ns > self._forecast_ns:
                self.diagnostics.meter.count("chunk later than forecast")
            self.diagnostics.meter.sample("delay_forecast_s", self._forecast_ns / 1e9)
            self.diagnostics.meter.sample("inference_s", chunk.inference_s)
            self.diagnostics.meter.sample("camera_to_chunk_s", (ready_ns - chunk.stamp_ns) / 1e9)

    def _on_done(self) -> None:
        if reason := self._inference.outcome():
            self.complain(reason)
        self._consider()

    def _on_instruction(self, request: SetInstruction.Request, response: SetInstruction.Response) -> str:
        self._runs.end("another instruction was set")
        response.instruction_id = self._instruct(request.instruction, self._config.seed)
        return f"instruction {self._instruction_id}: {self._instruction or 'none, the policy rests'}"

    def _instruct(self, text: str, seed: int) -> int:
        """Change the instruction, empty for none; `seed` is that of its first chunk. Returns its number."""
        text = " ".join(text.split())
        if text:
            self._inference.instruct(text)
        self._instruction, self._instruction_id, self._next_seed = text, self._instruction_id + 1, seed
        self._last_ns, self._running = -1, None
        return self._instruction_id

    def _change(self, config: PolicyNodeConfig) -> None:
        self._config = config

    def _watch(self) -> None:
        """Complain of silent streams while active, and say so when all is well again."""
        if self.is_active and self.steady.now().nanoseconds > self._watch_from_ns:
            self._sync.check(self.get_clock().now().nanoseconds)
            self.diagnostics.set(OK, f"instruction {self._instruction_id}: {self._instruction or 'none'}")


def main() -> NoReturn:
    """Run the node."""
    leave(run(PolicyNode))
