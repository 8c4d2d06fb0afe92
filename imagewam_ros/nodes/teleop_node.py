# SPDX-License-Identifier: Apache-2.0
"""A human's hands to the executor: leader arms, gamepad, SpaceMouse or keyboard, one chunk per period.

In the simulator the scripted expert may be the operator.

Activation arms the operator; `teleop/engage` lets go and arms again. What the operator has to do
next is on `teleop/status` and /diagnostics. For an intervention in a policy's run (takeover) only
`teleop/engage` arms: it asks the executor to stop the arms, so that the leaders can match them.
Letting go leaves the arms with the human; `executor/release` hands them back.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PoseArray
from rclpy.client import Client
from rclpy.task import Future
from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import String
from std_srvs.srv import SetBool

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, GraphError, unknown_name
from imagewam_ros.core.joints import JointMerge
from imagewam_ros.core.schema import Source
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.description import describe, expand
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.msg import SimStatus
from imagewam_ros.nodes import messages, parameters, qos, topics
from imagewam_ros.nodes.diagnostics import OK, WARN
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.nodes.spin import run
from imagewam_ros.teleop.cartesian import CartesianConfig, CartesianOperator
from imagewam_ros.teleop.clutch import ClutchConfig
from imagewam_ros.teleop.devices import DEVICES, DeviceConfig, open_device
from imagewam_ros.teleop.leader import LeaderConfig, LeaderMap, LeaderOperator
from imagewam_ros.teleop.operator import ChunkConfig, ChunkMaker, Clutch, Operator, Step

LEADER, EXPERT = "leader", "expert"


@dataclass(frozen=True)
class TeleopConfig:
    """device is leader, a hand-held one, or expert. takeover marks chunks as an intervention in a policy's run.

    urdf is the path of a xacro file for the inverse kinematics, by default the robot's own.
    """

    robot: str = "sim_cell"
    device: str = LEADER
    takeover: bool = False
    urdf: str = ""
    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    leader: LeaderConfig = field(default_factory=LeaderConfig)
    clutch: ClutchConfig = field(default_factory=ClutchConfig)
    cartesian: CartesianConfig = field(default_factory=CartesianConfig)
    devices: DeviceConfig = field(default_factory=DeviceConfig)

    def __post_init__(self) -> None:
        if self.device not in (LEADER, EXPERT, *DEVICES):
            raise ConfigError(unknown_name("device", self.device, (LEADER, EXPERT, *DEVICES)))


class TeleopNode(ManagedNode):
    """Ask the operator once per chunk period and publish what it answers."""

    def __init__(self) -> None:
        super().__init__("teleop")
        self._take_over: Client[Any, Any] | None = None
        self._last_ns, self._clutch = 0, Clutch.RELEASED
        self._told = ""

    def setup(self) -> None:
        """Open the device and connect the topics."""
        self._config = config = parameters.declare(self, TeleopConfig)
        self._robot = load_embodiment(config.robot)
        self._joints = JointMerge.of(self._robot)
        source = Source.TAKEOVER if config.takeover else Source.TELEOP
        chunks = ChunkMaker(self._robot, config.chunk, source)
        self._operator = self._open(config, chunks, source)
        self.cleanup.callback(self._operator.close)
        self._chunks_out = self.publisher(ActionChunkMsg, topics.CHUNK, qos.CHUNKS)
        self._status_out = self.publisher(String, topics.TELEOP_STATUS, qos.STATUS)
        self.subscribe(JointStateMsg, topics.JOINT_STATES, self._on_follower, qos.JOINT_STATES)
        if config.takeover and config.device in (LEADER, EXPERT):
            alone = config.device == LEADER and len(config.leader.sides) == 1
            one = f"_{config.leader.sides[0]}" if alone else ""
            self._take_over = self.create_client(SetBool, topics.TAKE_OVER + one)
            self.cleanup.callback(self.destroy_client, self._take_over)
        self.serve(SetBool, topics.TELEOP_ENGAGE, self._on_engage)
        self.every(chunks.period_s, self._step)

    def start(self) -> None:
        """Allow engaging; nothing moves before the operator matches or holds the dead-man switch."""
        if self._config.takeover:
            self._release("call teleop/engage to take over")
        else:
            self._operator.arm()

    def stop(self, reason: str) -> None:
        """Let go: no further chunks, and the executor brakes at the end of the last one."""
        self._release(reason)

    def _release(self, reason: str) -> None:
        self._operator.release(reason)
        self._clutch = Clutch.RELEASED

    def _open(self, config: TeleopConfig, chunks: ChunkMaker, source: Source) -> Operator:
        if config.device == LEADER:
            return self._leaders(config, chunks)
        return self._expert(source) if config.device == EXPERT else self._hands(config, chunks)

    def _expert(self, source: Source) -> Operator:
        from imagewam_ros.nodes.expert_operator import ExpertOperator  # MuJoCo is loaded only where it is wanted

        operator, scene = ExpertOperator(self._robot, source), SimStatus()

        def on_status(message: SimStatus) -> None:
            nonlocal scene
            scene = message

        def on_objects(message: PoseArray) -> None:
            if len(message.poses) == len(scene.object_names):
                poses = map(messages.to_pose, message.poses)
                operator.see(scene.task, scene.instruction, dict(zip(scene.object_names, poses, strict=True)))

        self.subscribe(SimStatus, topics.SIM_STATUS, on_status, qos.STATUS)
        self.subscribe(PoseArray, topics.SIM_OBJECTS, on_objects, qos.STATUS)
        return operator

    def _leaders(self, config: TeleopConfig, chunks: ChunkMaker) -> Operator:
        operator = LeaderOperator(self._robot, config.leader, config.clutch, chunks)
        for side in config.leader.sides:
            names = LeaderMap(self._robot, side, getattr(config.leader, side)).joint_names
            self.subscribe(JointStateMsg, topics.leader(side), self._reader(operator, side, names), qos.JOINT_STATES)
        return operator

    def _hands(self, config: TeleopConfig, chunks: ChunkMaker) -> Operator:
        urdf = expand(Path(config.urdf)) if config.urdf else describe(self._robot)
        chains = Chains(urdf, self._robot)
        return CartesianOperator(chains, open_device(config.device, config.devices), config.cartesian, chunks)

    def _reader(self, operator: LeaderOperator, side: str, names: tuple[str, ...]) -> Callable[[JointStateMsg], None]:
        merge = JointMerge(names)

        def read(message: JointStateMsg) -> None:
            messages.merge_joint_state(message, merge)
            operator.read(side, merge.state)

        return read

    def _on_follower(self, message: JointStateMsg) -> None:
        messages.merge_joint_state(message, self._joints)

    def _on_engage(self, request: SetBool.Request, response: SetBool.Response) -> str:
        if not request.data:
            self._release("let go by request")
            return "released"
        if not self.is_active:
            raise GraphError("teleop is not active; activate it first")
        if self._take_over is not None:
            if not self._take_over.service_is_ready():
                raise GraphError(f"no {self._take_over.srv_name}; is the executor running?")
            self._take_over.call_async(SetBool.Request(data=True)).add_done_callback(self._on_taken)
        self._operator.arm()
        return "armed"

    def _on_taken(self, future: "Future[SetBool.Response]") -> None:
        answer = future.result()
        if answer is not None and not answer.success:
            self._release(answer.message)

    def _step(self) -> None:
        now_ns = self.get_clock().now().nanoseconds
        last_ns, self._last_ns = self._last_ns, now_ns
        if not self._joints.complete:
            self._tell(
                Step(None, Clutch.RELEASED, "joint_states of both arms have not come yet; is the robot running?")
            )
            return
        if now_ns == last_ns:
            return  # simulated time stands still
        if now_ns < last_ns and self._clutch is not Clutch.RELEASED:
            self._operator.release("time went back")
            self._operator.arm()  # who was not armed must not become so
        step = self._operator.step(now_ns, self._joints.state)
        self._clutch = step.clutch
        if step.chunk is not None:
            self._chunks_out.publish(messages.from_chunk(step.chunk))
            self.diagnostics.meter.count("chunks")
        self._tell(step)

    def _tell(self, step: Step) -> None:
        text = f"{step.clutch.value}: {step.reason}".rstrip(": ")
        if text != self._told:
            self._told = text
            self._status_out.publish(String(data=text))
            self.diagnostics.set(WARN if self.is_active and step.clutch is not Clutch.ENGAGED else OK, text)


def main() -> int:
    """Run the node."""
    return run(TeleopNode)
