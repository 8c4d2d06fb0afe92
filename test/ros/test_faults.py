# SPDX-License-Identifier: Apache-2.0
"""Faults injected into the running cell: the arms come to rest, somebody says why, and the recorder loses nothing.

Every test records an episode, hurts the cell while the arms move, and measures on the joint states how long they
go on moving. The rows are printed at the end of the run: pytest test/ros/test_faults.py
"""

import dataclasses
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import Source
from imagewam_ros.data.bag_counts import COUNTS_KEY
from imagewam_ros.data.run_log import read_run
from imagewam_ros.msg import ActionChunk, ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.srv import SetInstruction

ROBOT = load_embodiment("sim_cell")
SPEED = 0.5
"""Simulated seconds per second, so that a busy machine keeps up; times to standstill are simulated."""

STILL = 0.01
"""rad/s below which a joint is said to stand."""

STILL_S = 0.3
"""For which all joints must stand."""

STANDSTILL_S = 1.0
"""Longest time from the death of the executor until the arms measure no motion."""

LAST_ROW_S = 1.4
"""Longest time from the last chunk until its rows are done and the arms stand."""


class Scene:
    """A recorded cell that is hurt. `began` is set by `hurt`; `row` is what the summary prints."""

    def __init__(self, cell, spawn, probe, folder: Path, **options: object) -> None:
        self.recorder = spawn(
            "imagewam_ros.nodes.recorder_node",
            directory=str(folder),
            instruction="lift",
            use_sim_time=options.get("simulated", True),
            recording__free_mb=0,
        )
        self.running = cell(speed=SPEED, **options) if options.get("simulated", True) else cell(**options)
        self.probe, self.hurt_ns = probe, 0
        assert probe.change("recorder", "configure", "activate"), self.recorder.text()
        self.running.activate()
        answer: list = []

        def started() -> bool:
            answer[:] = [probe.call(Trigger, "episode/start", Trigger.Request(), once=True)]
            return bool(answer[0].success)

        assert probe.until(started), answer
        self.folder = Path(answer[0].message)
        assert probe.until(lambda: self.running.logged), self.running.executor.text()
        self.first_tick = self.running.logged[-1].tick

    def hurt(self) -> None:
        """The fault happens now."""
        self.hurt_ns, self._hurt_at = self.running.now_ns, len(self.running.joints)
        self.running.look_from_here()

    def speed(self, message: JointState) -> float:
        return float(np.abs(messages.to_joint_state(message, ROBOT.joint_names).velocity).max())

    def standstill_s(self) -> float:
        """Wait until the arms stand and return how long after the fault they last moved."""

        def still() -> bool:
            after = list(self.running.joints)[self._hurt_at :]
            stamps = [messages.stamp_ns(message.header.stamp) for message in after]
            if not after or stamps[-1] - stamps[0] < STILL_S * 1e9:
                return False
            late = [m for m, stamp in zip(after, stamps, strict=True) if stamp > stamps[-1] - STILL_S * 1e9]
            return max(map(self.speed, late)) < STILL

        assert self.probe.until(still), self.running.executor.text()
        after = list(self.running.joints)[self._hurt_at :]
        moving = [messages.stamp_ns(j.header.stamp) for j in after if self.speed(j) >= STILL]
        return max(((moving[-1] - self.hurt_ns) / 1e9) if moving else 0.0, 0.0)

    def recorded(self) -> str:
        """End the episode; every command that was heard must be in it, and nothing dropped."""
        heard = {c.tick for c in self.running.logged if c.tick > self.first_tick}
        assert self.probe.call(Trigger, "episode/stop", Trigger.Request(), once=True).success
        assert self.probe.until((self.folder / "metadata.yaml").exists)
        ticks = {c.tick for c in read_run(self.folder).commands}
        assert heard <= ticks, f"{len(heard - ticks)} of {len(heard)} commands are not in the bag"
        custom = yaml.safe_load((self.folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"][
            "custom_data"
        ]
        counts = json.loads(custom[COUNTS_KEY])["topics"]
        assert sum(topic["dropped"] for topic in counts.values()) == 0
        for name, topic in counts.items():
            assert topic["lost"] == 0 or "image" in name, (name, topic)
        return f"{sum(topic['written'] for topic in counts.values())} messages written, none dropped"


@pytest.fixture
def scene(cell, spawn, probe, tmp_path, record_property) -> Callable[..., Scene]:
    def make(**options: object) -> Scene:
        found = Scene(cell, spawn, probe, tmp_path / "episodes", **options)
        found.row = lambda fault, seconds, reason: record_property("fault", (fault, seconds, reason, found.recorded()))
        return found

    return make


class Wire:
    """What the simulator says passes through here: one message per arm, one camera, the clock."""

    REMAP = "joint_states:=cell_joint_states /clock:=/cell_clock"
    CAMERA = ROBOT.camera("left_wrist").topic

    def __init__(self, probe, *topics_too: str) -> None:
        self.sides = {arm.side: ROBOT.joint_names[ROBOT.arm_slice(arm.side)] for arm in ROBOT.arms}
        self.shift_ns, self.seeing = 0, True
        node = probe.node
        self._joints = node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
        self._clock = node.create_publisher(Clock, "/clock", qos.CLOCK_OUT)
        node.create_subscription(Clock, "/cell_clock", self._on_clock, qos.CLOCK_OUT)
        node.create_subscription(JointState, "cell_joint_states", self._on_joints, qos.COMMAND_LOG)
        if "camera" in topics_too:
            self._images = node.create_publisher(Image, self.CAMERA, qos.IMAGES_OUT)
            node.create_subscription(Image, "cell_camera", self._on_image, qos.IMAGES_OUT)

    def _on_clock(self, message: Clock) -> None:
        self._clock.publish(Clock(clock=messages.to_time(messages.stamp_ns(message.clock) + self.shift_ns)))

    def _on_joints(self, message: JointState) -> None:
        for names in list(self.sides.values()):
            part = messages.from_joint_state(messages.to_joint_state(message, names))
            part.header.stamp = messages.to_time(messages.stamp_ns(message.header.stamp) + self.shift_ns)
            self._joints.publish(part)

    def _on_image(self, message: Image) -> None:
        if self.seeing:
            self._images.publish(message)


def start_policy(scene: Scene, spawn, checkpoint) -> object:
    """A real policy that drives the arms, until two of its chunks were accepted."""
    policy = spawn("imagewam_ros.nodes.policy_node", checkpoint=checkpoint, use_sim_time=True)
    assert scene.probe.change("policy", "configure", "activate"), policy.text()
    request = SetInstruction.Request(instruction="lift")
    assert scene.probe.call(SetInstruction, topics.SET_INSTRUCTION, request).success
    scene.running.wait(lambda s: s.state == ExecutorStatus.ACTIVE and s.accepted >= 2)
    return policy


def test_killed_policy(scene, spawn, checkpoint) -> None:
    hurt = scene()
    policy = start_policy(hurt, spawn, checkpoint)
    policy.kill()
    hurt.hurt()
    status = hurt.running.wait(lambda s: s.state == ExecutorStatus.HOLDING)
    assert "no new chunk" in status.reason
    seconds = hurt.standstill_s()
    assert seconds < LAST_ROW_S
    hurt.running.check_limits()
    hurt.row("policy killed (-9)", seconds, status.reason)


def test_paused_policy_is_not_obeyed_with_what_it_saw_long_ago(scene, spawn, checkpoint) -> None:
    hurt = scene()
    policy = start_policy(hurt, spawn, checkpoint)
    policy.process.send_signal(signal.SIGSTOP)
    hurt.hurt()
    status = hurt.running.wait(lambda s: s.state == ExecutorStatus.HOLDING)
    assert "no new chunk" in status.reason
    seconds = hurt.standstill_s()
    accepted, end_ns = hurt.running.statuses[-1].accepted, hurt.hurt_ns + 10 * 10**9
    assert hurt.probe.until(lambda: hurt.running.now_ns > end_ns), "a pause of ten seconds"
    assert hurt.running.statuses[-1].accepted == accepted
    policy.process.send_signal(signal.SIGCONT)
    hurt.running.wait(lambda s: s.state == ExecutorStatus.ACTIVE and s.accepted > accepted)
    hurt.running.check_limits()
    hurt.row("policy paused for 10 s", seconds, status.reason)


def test_one_frozen_camera_stops_the_policy(scene, spawn, probe, checkpoint) -> None:
    wire = Wire(probe, "camera")
    hurt = scene(remap=f"{Wire.REMAP} {Wire.CAMERA}:=cell_camera")
    policy = start_policy(hurt, spawn, checkpoint)
    wire.seeing = False
    hurt.hurt()
    status = hurt.running.wait(lambda s: s.state == ExecutorStatus.HOLDING)
    assert "no new chunk" in status.reason
    seconds = hurt.standstill_s()
    assert probe.until(lambda: "camera 'left_wrist' silent for" in policy.text()), policy.text()
    hurt.row("one camera frozen", seconds, f"{status.reason} (policy: camera 'left_wrist' silent)")


@pytest.mark.parametrize("output", ["forward", "trajectory"])
def test_killed_executor_leaves_no_arm_moving(scene, output) -> None:
    hurt = scene(output=output)
    running = hurt.running
    running.start_moving()
    running.executor.kill()
    hurt.hurt()
    last = running.commands[-1]
    seconds = hurt.standstill_s()
    assert seconds < STANDSTILL_S
    beyond = (running.position - last.position)[[0, 7]]
    if output == "forward":
        assert np.abs(beyond).max() < 0.05, "the forward controllers hold the last command"
    else:
        stop = ROBOT.limits.velocity[0] ** 2 / ROBOT.limits.acceleration[0] / 0.7 + 0.1
        assert (beyond > -0.02).all() and (beyond < stop).all(), "the trajectory controllers play to the rest point"
    after = {"forward": "controllers hold the last command", "trajectory": "controllers play to the rest point"}
    hurt.row(f"executor killed, {output} controllers", seconds, after[output])


def test_one_arms_frozen_joint_states_stop_both(scene, probe) -> None:
    wire = Wire(probe)
    hurt = scene(remap=Wire.REMAP, control__joint_state_timeout_s=1.0)
    hurt.running.start_moving()
    del wire.sides["right"]
    hurt.hurt()
    status = hurt.running.wait(lambda s: s.state == ExecutorStatus.FAULTED)
    assert "right arm's joint states silent" in status.reason
    seconds = hurt.standstill_s()
    assert seconds < 2.0
    hurt.running.check_limits()
    hurt.row("one arm's joint states frozen", seconds, status.reason)


def test_silent_controller_stops_both(scene, probe) -> None:
    """The controllers of this cell die with the simulator, so what was sent is what can be measured."""
    wire = Kept(probe)
    hurt = scene(simulated=False, remap="joint_states:=cell_joint_states")
    running = hurt.running
    running.send(running.chunk(running.lean(0.6), rows=190))
    running.wait_for_speed(0.05)
    hurt.hurt()
    running.sim.process.send_signal(signal.SIGINT)
    assert probe.until(lambda: not probe.node.count_subscribers(topics.forward("left")))
    began_ns, seen = messages.stamp_ns(running.logged[-1].nominal), len(running.logged)
    status = running.wait(lambda s: s.state == ExecutorStatus.HOLDING)
    assert "controller silent" in status.reason
    running.wait_at_rest()
    moving = [m for m in list(running.logged)[seen:] if np.abs(m.velocity).max() >= STILL]
    seconds = (messages.stamp_ns(moving[-1].nominal) - began_ns) / 1e9 if moving else 0.0
    assert seconds < 4.0
    running.check_limits()
    wire.stop()
    hurt.row("controllers shut down (commands)", seconds, status.reason)


class Kept:
    """Joint states that go on when the simulator is dead, as drivers without controllers tell them."""

    def __init__(self, probe) -> None:
        self._probe, self._latest = probe, None
        self._joints = probe.node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
        probe.node.create_subscription(JointState, "cell_joint_states", self._hear, qos.COMMAND_LOG)
        self._timer = probe.node.create_timer(0.01, self._send)

    def _hear(self, message: JointState) -> None:
        self._latest = message

    def _send(self) -> None:
        if self._latest is not None:
            self._latest.header.stamp = self._probe.node.get_clock().now().to_msg()
            self._joints.publish(self._latest)

    def stop(self) -> None:
        self._timer.cancel()


@pytest.mark.parametrize(
    ("fault", "text"),
    [("chunk of NaNs", "row 0 of joint 'left_waist' is nan"), ("chunk for another contract", "contract 'f00d'")],
)
def test_bad_chunk_is_refused_and_the_arms_end_where_the_good_one_said(scene, fault, text) -> None:
    hurt = scene()
    running = hurt.running
    running.start_moving()
    spoilt = {"positions": np.full((16, 14), np.nan)} if "NaN" in fault else {"contract_hash": "f00d"}
    hurt.hurt()
    status = running.refuse(text, lambda good: dataclasses.replace(good, **spoilt))
    seconds = hurt.standstill_s()
    assert seconds < LAST_ROW_S
    running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "no new chunk" in s.reason)
    running.check_limits()
    hurt.row(fault, seconds, f"refused: {status.refusal}")


@pytest.mark.parametrize("jump_s", [5, -5])
def test_clock_jump_holds_and_recovers(scene, probe, jump_s) -> None:
    wire = Wire(probe)
    hurt = scene(remap=Wire.REMAP)
    running = hurt.running
    running.start_moving()
    wire.shift_ns = jump_s * 10**9
    hurt.hurt()
    status = running.wait(lambda s: s.state == ExecutorStatus.HOLDING and "time jumped by" in s.reason)
    assert abs(float(status.reason.split()[3]) - jump_s) < 1.0
    seconds = hurt.standstill_s()
    assert seconds < 2.0
    running.drive(running.lean(0.1), later_ns=wire.shift_ns)
    running.check_limits()
    hurt.row(f"clock jumps by {jump_s:+d} s", seconds, status.reason)


def test_of_two_commanders_the_lower_one_is_refused(scene) -> None:
    hurt = scene(control__commander_timeout_s=10.0)
    running = hurt.running
    running.drive(running.lean(0.3), source=Source.TELEOP)
    hurt.hurt()
    status = running.refuse("policy is refused")
    assert "teleop commands" in status.refusal
    assert status.source == ActionChunk.SOURCE_TELEOP
    for source in (Source.POLICY, Source.TELEOP) * 3:  # at once: each is judged, none is lost on the way
        running.send(dataclasses.replace(running.chunk(running.lean(0.1)), source=source))
        time.sleep(0.01)
    running.wait(lambda s: s.accepted + s.refused >= status.accepted + status.refused + 6)
    hurt.hurt()
    seconds = hurt.standstill_s()
    running.check_limits()
    hurt.row("two commanders at once", seconds, status.refusal)
