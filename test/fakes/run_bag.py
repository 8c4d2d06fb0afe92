# SPDX-License-Identifier: Apache-2.0
"""A bag of a real executor's run, written without ROS: chunks, commands, events, parameters."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from imagewam_ros.control import tracking
from imagewam_ros.control.executor import Executor, ExecutorConfig, State
from imagewam_ros.control.guard import Guard
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import ActionChunk, Command, JointState
from imagewam_ros.data.bag import BagWriter, Topic
from imagewam_ros.data.bag_types import typestore

START_NS = 1_700_000_000_000_000_000
KINDS = {
    "policy/action_chunk": "imagewam_ros/msg/ActionChunk",
    "executor/command": "imagewam_ros/msg/ExecutorCommand",
    "executor/event": "imagewam_ros/msg/ExecutorEvent",
    "executor/parameters": "std_msgs/msg/String",
    "joint_states": "sensor_msgs/msg/JointState",
}


class RunBag:
    """Plays `seconds` of slices of one motion through an executor and writes what its node would."""

    def __init__(
        self, robot: Embodiment, config: ExecutorConfig, leave_out: tuple[str, ...] = (), guard: Guard | None = None
    ) -> None:
        self.robot, self.config, self._leave_out, self._guard = robot, config, leave_out, guard
        self.rng = np.random.default_rng(4)
        self.types = typestore().types
        self._messages: list[tuple[str, int, object]] = []

    def write(
        self,
        folder: Path,
        seconds: float = 3.0,
        nudge: tuple[int, float] = (-1, 0.0),
        hold_s: float = 0,
        stray_s: float = 1e9,
        set_s: float = 1e9,
    ) -> Path:
        """Write the bag.

        nudge (tick, rad) changes one recorded command; hold_s is when somebody holds for 0.5 s, from stray_s on a
        joint is measured far from its command, at set_s the clock is set forward by eight periods.
        """
        robot, executor = self.robot, Executor(self.robot, self.config, self._guard)
        trajectory = tracking.smooth(robot, self.rng, 0.4)
        start = trajectory.at(np.zeros(1))[0]
        arriving = [
            (START_NS + at_ns + int(self.rng.integers(0, 4_000_000)), self.moved(chunk))
            for at_ns, chunk in tracking.deliveries(robot, trajectory, 0.12, seconds)
        ]
        self.put("executor/parameters", START_NS, self.parameters())
        self.put("joint_states", START_NS, self.joint_state(start))
        executor.activate(START_NS, JointState(START_NS, robot.joint_names, start, np.zeros(start.size)))
        tick, rate = 0, robot.control_rate_hz
        asked = [(hold_s * rate, "hold"), ((hold_s + 0.5) * rate, "resume")] if hold_s else []
        while executor.next_ns < START_NS + seconds * 1e9:
            is_set = set_s * rate <= tick < set_s * rate + 1
            late = 8 if is_set else int(self.rng.choice([0] * 30 + [1] * 10 + [5]))
            now_ns = executor.next_ns + late * robot.period_ns + 300_000
            while arriving and arriving[0][0] <= now_ns:
                self.judge(executor, *arriving.pop(0), tick)
            if asked and tick >= asked[0][0]:
                name = asked.pop(0)[1]
                executor.hold("asked to hold") if name == "hold" else executor.resume()
                self.put("executor/event", now_ns, self.event(now_ns, tick, name, "asked to hold"))
            before = executor.state
            measured = self.astray(executor, now_ns) if tick > stray_s * rate else None
            step = executor.step(now_ns, measured, elapsed_ns=robot.period_ns if is_set else None)
            if step.state is State.FAULTED and before is not State.FAULTED:
                self.put("executor/event", now_ns, self.event(now_ns, tick, "watchdog", step.reason, state=3))
            command = step.command
            tick = command.tick
            moved = np.array(command.position)
            moved[3] += nudge[1] * (tick == nudge[0])
            self.put("executor/command", now_ns, self.command(command, moved))
        return self.save(folder)

    def astray(self, executor: Executor, now_ns: int) -> JointState:
        position = np.array(executor.reference().position)
        position[2] += 1.0
        return JointState(now_ns, self.robot.joint_names, position, np.zeros(position.size))

    def moved(self, chunk: ActionChunk) -> ActionChunk:
        noise = np.where(self.robot.gripper_mask, 0.0, self.rng.normal(0, 0.01, len(self.robot.joints)))
        positions = chunk.positions + noise
        return dataclasses.replace(chunk, stamp_ns=START_NS + chunk.stamp_ns, positions=positions, contract_hash="one")

    def judge(self, executor: Executor, at_ns: int, chunk: ActionChunk, tick: int) -> None:
        """At the time of its arrival, recorded 3 ms later by a recorder of its own."""
        verdict = executor.accept(chunk, at_ns)
        self.put("policy/action_chunk", at_ns + 3_000_000, self.chunk(chunk))
        trigger = "accepted" if verdict.accepted else "refused"
        self.put("executor/event", at_ns, self.event(at_ns, tick, trigger, verdict.reason, chunk))

    def put(self, topic: str, log_ns: int, message: object) -> None:
        if topic not in self._leave_out:
            self._messages.append((topic, log_ns, message))

    def save(self, folder: Path) -> Path:
        with BagWriter(folder, {}) as bag:
            channels = {
                topic: bag.add(Topic(f"/{topic}", kind))
                for topic, kind in KINDS.items()
                if topic not in self._leave_out
            }
            for topic, log_ns, message in sorted(self._messages, key=lambda m: m[1]):
                bag.write(channels[topic], log_ns, bytes(typestore().serialize_cdr(message, KINDS[topic])))
            bag.close({})
        return folder

    def stamp(self, time_ns: int) -> object:
        return self.types["builtin_interfaces/msg/Time"](sec=time_ns // 10**9, nanosec=time_ns % 10**9)

    def header(self, time_ns: int) -> object:
        return self.types["std_msgs/msg/Header"](stamp=self.stamp(time_ns), frame_id="")

    def parameters(self) -> object:
        values = {
            "robot": self.robot.name,
            "guarded": self._guard is not None,
            "control": dataclasses.asdict(self.config),
        }
        return self.types["std_msgs/msg/String"](data=json.dumps(values))

    def joint_state(self, position: np.ndarray) -> object:
        names, zero = list(self.robot.joint_names), np.zeros(0)
        kind = self.types["sensor_msgs/msg/JointState"]
        return kind(header=self.header(START_NS - 1), name=names, position=position, velocity=zero, effort=zero)

    def command(self, command: Command, position: np.ndarray) -> object:
        return self.types[KINDS["executor/command"]](
            header=self.header(command.nominal_ns + 400_000),
            tick=command.tick,
            nominal=self.stamp(command.nominal_ns),
            period_ns=command.period_ns,
            joint_names=list(command.joint_names),
            position=position,
            velocity=np.array(command.velocity),
            acceleration=np.array(command.acceleration),
        )

    def event(
        self, time_ns: int, tick: int, trigger: str, reason: str, chunk: ActionChunk | None = None, state: int = 2
    ) -> object:
        return self.types[KINDS["executor/event"]](
            header=self.header(time_ns),
            tick=tick,
            trigger=trigger,
            state=state,
            reason=reason,
            source=255 if chunk is None else int(chunk.source),
            sequence=0 if chunk is None else chunk.sequence,
            NO_CHUNK=255,
        )

    def chunk(self, chunk: ActionChunk) -> object:
        kind = self.types[KINDS["policy/action_chunk"]]
        constants = {name: getattr(kind, name) for name in dir(kind) if name.startswith("SOURCE_")}
        return kind(
            header=self.header(chunk.stamp_ns),
            schema=chunk.schema,
            sequence=chunk.sequence,
            source=int(chunk.source),
            ready=self.stamp(chunk.stamp_ns),
            instruction_id=1,
            contract_hash=chunk.contract_hash,
            period_ns=chunk.period_ns,
            first_row_offset_periods=chunk.first_row_offset_periods,
            joint_names=list(chunk.joint_names),
            rows=chunk.rows,
            positions=np.array(chunk.positions).ravel(),
            committed_rows=0,
            spread=np.zeros(0, np.float32),
            seed=0,
            denoise_steps=0,
            inference_s=0.0,
            **constants,
        )
