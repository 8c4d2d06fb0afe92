# SPDX-License-Identifier: Apache-2.0
"""Observations to action chunks: one forward of the policy whenever the next chunk is due.

Inference has a thread of its own; what arrives meanwhile waits in the synchroniser, and the latest
observation wins. A new instruction is encoded on that thread between two chunks: until it is, the
running chunk goes on. Without an instruction nothing is inferred, so the arms hold.
"""

import dataclasses
import gc
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState as JointStateMsg

from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.joints import JointMerge
from imagewam_ros.core.schema import ActionChunk, Image
from imagewam_ros.core.sync import SyncConfig, Synchroniser
from imagewam_ros.model.sampler import SamplerConfig
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.nodes import message_filters, messages, parameters, qos, topics
from imagewam_ros.nodes.chunk_trace import ChunkTrace, DelayWatch, Received
from imagewam_ros.nodes.diagnostics import OK
from imagewam_ros.nodes.goal_preview import Gap, GoalPreviewServer
from imagewam_ros.nodes.inference import InferenceThread, load_policy
from imagewam_ros.nodes.instructions import Instructions, plain_text
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.nodes.run_policy import RunPolicyServer
from imagewam_ros.nodes.spin import run
from imagewam_ros.policy import Policy
from imagewam_ros.srv import SetInstruction

WATCH_S = 0.2
SWITCH_S = 0.0005
"""How long callbacks may keep the interpreter from the inference thread, and the other way round."""


@dataclass(frozen=True)
class PolicyNodeConfig:
    """checkpoint is a name in models/ or a path, device one of auto, cpu, cuda, cuda:N.

    replan_period_s is the time between the observations of two chunks. seed is that of the first
    chunk after an instruction; the next ones count on. cpu_threads 0 leaves the choice to torch.
    weights are full, or at lower precision: int8_weight_only, fp8_weight_only, fp8_dynamic.
    release_text frees the text encoder's memory until the next new instruction, which reads it from disk again:
    meanwhile nothing is inferred, and the arms rest where the running chunk ends.
    compressed subscribes to the compressed images. delay_quantile is the part of measured delays,
    from observation to the executor's next tick, that chunks are committed for (sampling.chunking).
    """

    robot: str = "sim_cell"
    checkpoint: str = "tiny"
    device: str = "auto"
    weights: str = "full"
    release_text: bool = False
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

    config_type: type[PolicyNodeConfig] = PolicyNodeConfig

    def __init__(self) -> None:
        super().__init__("policy")
        self._last_ns, self._arrived_ns = -1, 0
        self._running: ActionChunk | None = None

    def setup(self) -> None:
        """Load and warm up, then subscribe."""
        self._config = config = parameters.declare(self, self.config_type, changeable=("replan_period_s",))
        self._robot = load_embodiment(config.robot)
        self._joints = JointMerge.of(self._robot)
        self._inference = InferenceThread(partial(self.load, config, self._robot))
        self.cleanup.callback(self._inference.close)
        contract = self._inference.policy.contract
        cameras = {name: self._robot.camera(name) for name in contract.camera_names}
        config.sync.check({name: camera.rate_hz for name, camera in cameras.items()})
        self._half_frame_ns = round(0.5e9 / cameras[contract.camera_names[0]].rate_hz)
        image_topics = {
            name: topics.compressed(camera.topic) if config.compressed else camera.topic
            for name, camera in cameras.items()
        }
        self._sync = Synchroniser(image_topics, topics.JOINT_STATES, config.sync, self._decode)
        self._done = self.create_guard_condition(self.guarded(self._on_done))
        self.cleanup.callback(self.destroy_guard_condition, self._done)
        self.cleanup.callback(self._inference.settle)
        self._chunks_out = self.publisher(ActionChunkMsg, topics.CHUNK, qos.CHUNKS)
        kind = CompressedImage if config.compressed else ImageMsg
        for name, topic in image_topics.items():
            self._filter(kind, topic, qos.IMAGES, partial(self._on_image, name))
        self._filter(JointStateMsg, topics.JOINT_STATES, qos.JOINT_STATES, self._on_joint_state)
        self.serve(SetInstruction, topics.SET_INSTRUCTION, self._on_instruction)
        self.every(WATCH_S, self._watch)
        self._instructions = Instructions(partial(self._inference.instruct, wake=self._done.trigger), self._on_change)
        self._runs = RunPolicyServer(self, self._instructions)
        self._previews = GoalPreviewServer(self, self._inference, self._sync, self._instructions, self._gap)
        self.cleanup.callback(parameters.on_change(self, config, self._change))
        self._instructions.begin(config.instruction, config.seed)

    def load(self, config: PolicyNodeConfig, robot: Embodiment) -> Policy:
        """Load what infers; called on its thread."""
        return load_policy(
            config.checkpoint,
            robot,
            config.device,
            config.cpu_threads,
            config.sampling,
            config.weights,
            plain_text(config.instruction),
            config.release_text,
        )

    def start(self) -> None:
        """Infer from now on."""
        sys.setswitchinterval(SWITCH_S)
        gc.collect()
        gc.freeze()  # a collection that visits all of torch takes 0.2 s, and images are lost meanwhile
        self._sync.clear()
        self._joints = JointMerge.of(self._robot)
        self._last_ns = -1
        self._running = None
        self._delays = DelayWatch(self._config.delay_quantile, self._robot.period_ns, self.diagnostics.meter)
        self._watch_from_ns = self.steady.now().nanoseconds + 2 * self._config.sync.max_age_ns

    def stop(self, reason: str) -> None:
        """End a run and wait for the running inference; its chunk is not published."""
        self._runs.end(f"the policy stopped: {reason}")
        self._previews.end(f"the policy stopped: {reason}")
        self._inference.outcome()
        gc.unfreeze()

    def _filter(self, kind: type, topic: str, profile: Any, callback: Any) -> None:
        subscriber = message_filters.Subscriber(self, kind, topic, qos_profile=profile)
        subscriber.registerCallback(self.guarded(callback))
        self.cleanup.callback(self.destroy_subscription, subscriber.sub)

    def _decode(self, camera: str, received: Received) -> Image:
        self._arrived_ns = max(self._arrived_ns, received.at_ns)
        return messages.to_image(received.message, self._robot.camera(camera))

    def _on_image(self, camera: str, message: ImageMsg | CompressedImage) -> None:
        self.diagnostics.meter.count(camera)
        shutter_ns = messages.stamp_ns(message.header.stamp) - self._robot.camera(camera).latency_ns
        self._sync.add_image(camera, shutter_ns, Received(message, self._now_ns))
        self._consider()

    def _on_joint_state(self, message: JointStateMsg) -> None:
        if messages.merge_joint_state(message, self._joints) and self._joints.complete:
            state = self._joints.state
            self._sync.add_joints(state.stamp_ns, state.position)
            self._consider()

    def _consider(self) -> None:
        """Infer if the thread is free and an observation of the next chunk's time is complete."""
        wanted = self._instructions
        if not self.is_active or not wanted.text or wanted.changing or self._inference.busy:
            return
        if self._sync.newest(self._due_ns) is None:
            return
        paired_ns, self._arrived_ns = self._now_ns, 0
        observation = self._sync.observation(paired_ns, wanted.text, wanted.number)
        assert observation is not None
        self._last_ns = observation.stamp_ns
        newest_ns = max(observation.stamp_ns - observation.ages_ns[camera] for camera in observation.images)
        self._trace = ChunkTrace(newest_ns, self._arrived_ns, paired_ns, self._now_ns)
        self._forecast_ns = self._delays.forecast_ns
        seed, wake, running = wanted.next_seed(), self._done.trigger, self._running
        if running is not None and running.instruction_id != wanted.number:  # published while it was being changed
            running = None
        self._inference.infer(observation, seed, self._take, wake, running, self._forecast_ns)

    def _take(self, chunk: ActionChunk) -> None:
        """Publish a chunk, unless its instruction was changed meanwhile; called on the inference thread."""
        ready_ns, meter = self._now_ns, self.diagnostics.meter
        if self.is_active and chunk.instruction_id == self._instructions.number:
            self._chunks_out.publish(messages.from_chunk(dataclasses.replace(chunk, ready_ns=ready_ns)))
            self._trace.sample(meter, chunk, self._inference.policy.preprocess_s, ready_ns, self._now_ns)
            self._running = chunk
            meter.count("chunk")
            if complaint := self._delays.judge(chunk, ready_ns, self._forecast_ns):
                self.get_logger().warning(complaint, throttle_duration_sec=1.0)

    def _on_done(self) -> None:
        """Something on the inference thread has ended."""
        if reason := self._inference.outcome():
            self.complain(reason)
        self._instructions.settle()
        self._consider()

    async def _on_instruction(self, request: SetInstruction.Request, response: SetInstruction.Response) -> str:
        self._runs.end("another instruction was set")
        response.instruction_id = number = await self._instructions.set(request.instruction, self._config.seed)
        return f"instruction {number}: {self._instructions.text or 'none, the policy rests'}"

    def _on_change(self) -> None:
        """Another instruction: its first chunk is due now and continues none."""
        self._last_ns, self._running = -1, None

    @property
    def _due_ns(self) -> int:
        """Earliest stamp of the next chunk's observation."""
        after_ns = max(round(self._config.replan_period_s * 1e9) - self._half_frame_ns, 0)
        return self._last_ns + after_ns if self._last_ns >= 0 else -1

    def _gap(self) -> Gap:
        """Time that is left for something else."""
        left_ns = self._due_ns - self._now_ns if self._instructions.text else None
        return Gap(left_ns, round(self._running.inference_s * 1e9) if self._running else 0)

    @property
    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _change(self, config: PolicyNodeConfig) -> None:
        self._config = config

    def _watch(self) -> None:
        """Complain of silent streams while active, and say so when all is well again."""
        if self.is_active and self.steady.now().nanoseconds > self._watch_from_ns:
            self._sync.check(self._now_ns)
            self.diagnostics.set(OK, f"instruction {self._instructions.number}: {self._instructions.text or 'none'}")


def main() -> int:
    """Run the node."""
    return run(PolicyNode)
