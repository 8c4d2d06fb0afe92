# SPDX-License-Identifier: Apache-2.0
"""Chunks to the arm controllers, as a process of its own: no images, no torch.

Callbacks only convert and hand over; the control thread owns the executor. Deactivation brakes
softly, and nothing is sent after the arms rest.
"""

import gc
from collections.abc import Callable, Mapping
from functools import partial

from sensor_msgs.msg import JointState as JointStateMsg
from std_srvs.srv import SetBool, Trigger

from imagewam_ros.control.executor import Executor, State, Step
from imagewam_ros.control.guard import Guard
from imagewam_ros.control.shadow import Agreement, Shadow
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import GraphError
from imagewam_ros.core.joints import JointMerge
from imagewam_ros.core.schema import ActionChunk, Source
from imagewam_ros.kinematics.description import describe
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.nodes import messages, parameters, qos, topics
from imagewam_ros.nodes.control_thread import ControlThread
from imagewam_ros.nodes.executor_config import ExecutorNodeConfig
from imagewam_ros.nodes.executor_log import ExecutorLog
from imagewam_ros.nodes.executor_report import Arrivals, agreement_text, diagnosis, travel_texts
from imagewam_ros.nodes.grippers import make_grippers
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.nodes.outputs import make_output
from imagewam_ros.nodes.spin import run

LISTEN_S = 0.1
"""How often it is looked whether the controllers still listen."""


class ExecutorNode(ManagedNode):
    """Hand chunks and joint states to the control thread; publish what it sends."""

    def __init__(self) -> None:
        super().__init__("executor")
        self._arrivals = Arrivals(self.diagnostics.meter)
        self._told: tuple[State, str] | None = None
        self._open_fault = ""
        self.finished, self.exit_status = False, 0

    def setup(self) -> None:
        """Build executor, control thread and topics."""
        self._config = config = parameters.declare(self, ExecutorNodeConfig)
        self._robot = robot = load_embodiment(config.robot)
        guard = Guard(robot, describe(robot), config.guard) if config.guarded else None
        if guard is not None:
            self.get_logger().info(guard.check_cost())
        self._executor = executor = Executor(robot, config.control, guard, self._open_fault)
        self.cleanup.callback(self._keep_fault)
        self._shadow = Shadow(robot) if config.shadow else None
        self._joints = JointMerge.of(robot)
        simulated = bool(self.get_parameter("use_sim_time").value)
        self._thread = ControlThread(
            self._executor, self.get_clock(), self, simulated=simulated, scale=config.real_time_factor
        )
        self.cleanup.callback(self._thread.close)
        self._thread.prepare(config.fifo_priority, config.cpu)
        for late_s in self._thread.measure_empty_loop():
            self.diagnostics.meter.sample("empty_loop_lateness_s", late_s)
        grippers = partial(make_grippers, config.grippers or robot.grippers, self, robot, config.gripper_effort)
        share, tell = config.control.stop_share, self._thread.hear_controller
        self._output = make_output(config.output, self, robot, share, grippers, tell)
        self._status_every = max(round(robot.control_rate_hz / config.status_rate_hz), 1)
        self._log = ExecutorLog(self, executor, config)
        self.subscribe(ActionChunkMsg, topics.CHUNK, self._on_chunk, qos.CHUNKS_IN)
        self.subscribe(JointStateMsg, topics.JOINT_STATES, self._on_joint_state, qos.JOINT_STATES)
        for name in (topics.HOLD, topics.PAUSE):
            hold = partial(executor.hold, f"asked to {name.rpartition('/')[2]}")
            self.serve(Trigger, name, lambda *_, hold=hold: self._ask(hold, keep=True))
        self.serve(Trigger, topics.RESUME, lambda *_: self._ask(executor.resume))
        self.serve(Trigger, topics.RESET_FAULT, lambda *_: self._ask(executor.reset_fault))
        self.serve(Trigger, topics.RELEASE, lambda *_: self._ask(lambda: executor.release(self._now_ns)))
        both = tuple(arm.side for arm in robot.arms)
        for name, sides in {"": both, **{f"_{side}": (side,) for side in both}}.items():
            self.serve(SetBool, topics.TAKE_OVER + name, partial(self._on_take_over, sides))
        self.every(LISTEN_S, lambda: self._thread.hear_controllers(self._output.listening_arms()))
        self._publish_status()

    def start(self) -> None:
        """Hold the arms where they are and listen to chunks. Raises StaleObservation and GraphError."""
        if silent := self._output.silent_topics():
            raise GraphError(f"nobody listens to {', '.join(silent)}; are the controllers active?")
        self._told = None
        self._log.begin()
        gc.collect()
        gc.freeze()  # what lives now lives on; the collector need not look at it between two ticks
        topic = self.resolve_topic_name(topics.JOINT_STATES)
        self._thread.start(self._joints.fresh(self._now_ns, self._config.joint_state_age_s, topic))

    def stop(self, reason: str) -> None:
        """Brake softly; nothing is sent after the arms rest."""
        self._thread.stop()
        gc.unfreeze()
        self._log.changed(self._now_ns)
        self._publish_status()
        for side, text in travel_texts(self._executor.status.travel).items():
            self.get_logger().info(f"{side}: {text}")

    def on_step(self, step: Step, now_ns: int, late_ns: int) -> None:
        """Send one sample, log it, and say what changed."""
        if not step.silent:
            self._output.send(step.command)
        self._log.sent(step, now_ns)
        self._arrivals.sent(self._now_ns)
        if self._shadow is not None:
            self._compare(self._shadow.sent(step.command) or {})
        self.diagnostics.meter.count("commands")
        self.diagnostics.meter.sample("lateness_s", late_ns / 1e9)
        self.diagnostics.meter.bucket("lateness", late_ns / 1e9)
        told, self._told = self._told, (step.state, step.reason)
        if told != self._told or step.command.tick % self._status_every == 0:
            self._publish_status()

    def on_trouble(self, reason: str) -> None:
        """Report that the clock stands still, or what failed."""
        self.complain(reason)

    def on_end(self, reason: str) -> None:
        """End the process: what should brake the arms is gone, and whoever watches it must know."""
        self.finished, self.exit_status = True, 1
        self._executor.fault(reason, "failure")
        self.get_logger().fatal(reason)
        self._log.changed(self._now_ns)
        self._publish_status()

    def _keep_fault(self) -> None:
        """A fault outlives the executor that it happened to."""
        self._open_fault = self._executor.open_fault

    def _on_chunk(self, message: ActionChunkMsg) -> None:
        heard_ns, chunk = self._now_ns, messages.to_chunk(message)
        self._thread.tell(partial(self.guarded(self._take), chunk, heard_ns))

    def _on_joint_state(self, message: JointStateMsg) -> None:
        arms = messages.merge_joint_state(message, self._joints)
        if self.is_active and self._joints.complete:
            self._thread.hear(arms, self._joints.state)

    def _on_take_over(self, sides: tuple[str, ...], request: SetBool.Request, response: SetBool.Response) -> str:
        """A human takes `sides`; data says whether the policy keeps the other arm."""

        def take() -> None:
            self._executor.take_over(sides, request.data)
            status = self._executor.status
            if not set(sides) <= set(status.taken_over):
                raise GraphError(
                    f"no takeover: the executor is {status.state.value}: {status.reason}; activate or reset it first"
                )

        return self._ask(take, keep=True)

    @property
    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _take(self, chunk: ActionChunk, heard_ns: int) -> None:
        """Offer a chunk to the executor, or to the shadow; runs on the control thread."""
        if self._shadow is not None and chunk.source == Source.POLICY:
            self._shadow.chunk(chunk)
            return
        now_ns = self._now_ns
        verdict = self._executor.accept(chunk, now_ns)
        self.diagnostics.meter.count("accepted" if verdict.accepted else "refused")
        self._log.judged(chunk, verdict, now_ns)
        if verdict.accepted:
            if complaint := self._arrivals.accepted(chunk, heard_ns, now_ns):
                self.get_logger().warning(complaint, throttle_duration_sec=1.0)
            return
        if self.is_active:
            self.get_logger().warning(f"refused chunk {chunk.sequence}: {verdict.reason}", throttle_duration_sec=1.0)
        self._publish_status()

    def _compare(self, agreement: Mapping[str, Agreement]) -> None:
        """Publish how the policy agrees with whoever moves the arms."""
        for side, found in agreement.items():
            self.diagnostics.meter.sample(f"{side}_agreement_rms_rad", found.rms)
            self.get_logger().info(f"shadow, {side} arm: {agreement_text(found)}")
            self._log.agreement = {**self._log.agreement, side: found.rms}

    def _ask(self, request: Callable[[], None], *, keep: bool = False) -> str:
        def answer() -> str:
            request()
            self._log.changed(self._now_ns)
            self._publish_status()
            return self._executor.status.reason

        return self._thread.ask(answer, keep=keep)

    def _publish_status(self) -> None:
        self._log.status(self._now_ns)
        self.diagnostics.set(*diagnosis(self._executor.status))


def main() -> int:
    """Run the node."""
    return run(ExecutorNode)
