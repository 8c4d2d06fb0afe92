# SPDX-License-Identifier: Apache-2.0
"""Hands to chunks through real topics, and a recorded gamepad that moves the simulated arm."""

import threading
from importlib.util import find_spec

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import JointState as Joints
from imagewam_ros.core.schema import Source
from imagewam_ros.msg import ActionChunk, ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics

TELEOP = "imagewam_ros.nodes.teleop_node"
ROBOT = load_embodiment("sim_cell")
READY = np.array((0.0, 0.6, 1.2, 0.0, -0.4, 0.0, 0.02) * 2)
ARMS = np.where(ROBOT.gripper_mask, 0.0, 1.0)


class Hands:
    """Two leaders and a follower that publish at 50 Hz, wherever a test puts them."""

    def __init__(self, probe) -> None:
        self.follower, self.leaders, self.sides = READY.copy(), READY.copy(), ("left", "right")
        self._probe, self._stop = probe, threading.Event()
        self._out = {
            topic: probe.node.create_publisher(JointState, topic, qos.JOINT_STATES_OUT)
            for topic in (topics.JOINT_STATES, topics.leader("left"), topics.leader("right"))
        }
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self._send(topics.JOINT_STATES, ROBOT.joint_names, self.follower)
            for side in self.sides:
                part = ROBOT.arm_slice(side)
                self._send(topics.leader(side), ROBOT.joint_names[part], self.leaders[part])

    def _send(self, topic, names, position) -> None:
        now_ns = self._probe.node.get_clock().now().nanoseconds
        self._out[topic].publish(messages.from_joint_state(Joints(now_ns, names, position, np.zeros(len(names)))))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)


@pytest.fixture
def hands(probe):
    hands = Hands(probe)
    yield hands
    hands.close()


def test_leaders_match_first_then_lead_and_let_go(spawn, probe, hands) -> None:
    teleop = spawn(TELEOP, takeover=True)
    chunks = probe.collect(ActionChunk, topics.CHUNK, qos.CHUNKS)
    status = probe.collect(String, topics.TELEOP_STATUS, qos.STATUS)
    asked = []

    def take_over(request, response):
        asked.append(request.data)
        response.success = True
        return response

    hands.leaders = READY + 0.2 * ARMS
    assert probe.change("teleop", "configure", "activate"), teleop.text()
    assert probe.until(lambda: status and status[-1].data == "released: call teleop/engage to take over")
    refused = probe.call(SetBool, topics.TELEOP_ENGAGE, SetBool.Request(data=True))
    assert "executor/take_over; is the executor running?" in refused.message
    service = probe.node.create_service(SetBool, topics.TAKE_OVER, take_over)
    assert probe.until(lambda: probe.call(SetBool, topics.TELEOP_ENGAGE, SetBool.Request(data=True)).success)
    assert probe.until(lambda: asked), "the executor is asked to stop the arms"
    assert probe.until(lambda: status and "rad from its follower" in status[-1].data), teleop.text()
    assert not chunks, "nothing moves before the leaders match"
    hands.leaders = READY + 0.02 * ARMS
    assert probe.until(lambda: len(chunks) > 10), teleop.text()
    chunk = messages.to_chunk(chunks[-1])
    assert chunk.source is Source.TAKEOVER
    assert chunk.joint_names == ROBOT.joint_names
    assert np.allclose(chunk.positions, READY + 0.02 * ARMS, atol=5e-3)
    assert probe.call(SetBool, topics.TELEOP_ENGAGE, SetBool.Request(data=False)).success
    assert probe.until(lambda: status[-1].data == "released: let go by request")
    count = len(chunks)
    assert probe.call(SetBool, topics.TELEOP_ENGAGE, SetBool.Request(data=True)).success
    assert probe.until(lambda: len(chunks) > count + 5)
    hands.sides = ("left",)
    assert probe.until(lambda: "leader silent" in status[-1].data)
    assert probe.change("teleop", "deactivate")
    refused = probe.call(SetBool, topics.TELEOP_ENGAGE, SetBool.Request(data=True))
    assert refused.message == "teleop is not active; activate it first"
    probe.node.destroy_service(service)
    assert teleop.stop() == 0, teleop.text()


def test_a_clock_that_is_set_back_arms_nobody(spawn, probe) -> None:
    clock = probe.node.create_publisher(Clock, "/clock", qos.CLOCK_OUT)
    joints = probe.node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
    status = probe.collect(String, topics.TELEOP_STATUS, qos.STATUS)
    teleop = spawn(TELEOP, use_sim_time=True, takeover=True)
    now_ns = 10 * 10**9

    def told(text: str) -> bool:
        nonlocal now_ns
        now_ns += 10**7
        clock.publish(Clock(clock=messages.to_time(now_ns)))
        joints.publish(messages.from_joint_state(Joints(now_ns, ROBOT.joint_names, READY, np.zeros(14))))
        return bool(status) and status[-1].data.startswith(text)

    assert probe.change("teleop", "configure", "activate"), teleop.text()
    assert probe.until(lambda: told("released: call teleop/engage")), teleop.text()
    now_ns -= 5 * 10**9
    for _ in range(50):
        probe.until(lambda: told("matching"), 0.02)
    assert not any("matching" in one.data for one in status), "nobody asked for a takeover"
    assert probe.call(SetBool, topics.TELEOP_ENGAGE, SetBool.Request(data=False)).success
    assert probe.until(lambda: told("released: let go by request")), teleop.text()


def test_an_absent_device_fails_to_configure_with_the_remedy(spawn, probe, tmp_path) -> None:
    pytest.importorskip("evdev", reason="needs python-evdev, requirements/teleop.txt")
    teleop = spawn(TELEOP, device="gamepad", devices__gamepad=tmp_path / "absent")
    assert not probe.change("teleop", "configure")
    assert "no input device at" in teleop.text()


@pytest.mark.skipif(find_spec("evdev") is not None, reason="python-evdev is installed here")
def test_an_absent_library_fails_to_configure_with_the_remedy(spawn, probe, tmp_path) -> None:
    teleop = spawn(TELEOP, device="gamepad", devices__gamepad=tmp_path / "absent")
    assert not probe.change("teleop", "configure")
    assert "python-evdev cannot be imported" in teleop.text() and "pip install evdev" in teleop.text()


def test_an_unknown_device_answers_with_the_nearest(spawn, probe) -> None:
    teleop = spawn(TELEOP, device="spacemose")
    assert not probe.change("teleop", "configure")
    assert "unknown device 'spacemose'; did you mean 'spacemouse'" in teleop.text()


def gamepad_recording(path, seconds: float) -> None:
    """Left shoulder held and left stick half back for `seconds`, as evemu-record would write it."""
    axes = [f"A: {code:02x} -32768 32767 16 128 0" for code in (0, 1, 3, 4)]
    events = ["E: 0.000001 0001 0136 1", "E: 0.000001 0003 0001 20000", "E: 0.000001 0000 0000 0"]
    events += [f"E: {seconds:.6f} 0001 0136 0", f"E: {seconds:.6f} 0000 0000 0"]
    path.write_text("\n".join(["# EVEMU 1.3", "N: recorded gamepad", *axes, *events]) + "\n")


def test_a_recorded_gamepad_moves_the_simulated_arm(spawn, probe, tmp_path) -> None:
    recording = tmp_path / "pad.evemu"
    gamepad_recording(recording, 3.0)
    joints = probe.collect(JointState, topics.JOINT_STATES, qos.COMMAND_LOG)
    status = probe.collect(ExecutorStatus, topics.STATUS, qos.STATUS)
    told = probe.collect(String, topics.TELEOP_STATUS, qos.STATUS)
    sim = spawn("imagewam_ros.nodes.sim_node", use_sim_time=True, speed=0.25)
    executor = spawn("imagewam_ros.nodes.executor_node", use_sim_time=True, real_time_factor=0.25)
    teleop = spawn(TELEOP, use_sim_time=True, device="gamepad", devices__gamepad=recording, chunk__rate_hz=20.0)
    for name in ("sim", "executor", "teleop"):
        assert probe.change(name, "configure"), (sim.text(), executor.text(), teleop.text())
    assert probe.change("sim", "activate"), sim.text()
    assert probe.until(lambda: len(joints) > 20)
    start = messages.to_joint_state(joints[-1], ROBOT.joint_names).position
    assert probe.until(lambda: probe.change("executor", "activate")), executor.text()
    assert probe.until(lambda: probe.change("teleop", "activate")), teleop.text()
    assert probe.until(lambda: any(s.source == ActionChunk.SOURCE_TELEOP and s.accepted > 10 for s in status))
    let_go = "matching: hold the dead-man switch to move"
    assert probe.until(lambda: told and told[-1].data == let_go), teleop.text()
    assert probe.until(lambda: status[-1].state == ExecutorStatus.HOLDING), status[-1].reason

    def moved() -> np.ndarray:
        return np.abs(messages.to_joint_state(joints[-1], ROBOT.joint_names).position - start)

    assert probe.until(lambda: moved()[:6].max() > 0.05), (moved(), status[-1], executor.text(), teleop.text())
    assert moved()[7:13].max() < 0.02, "the right arm was left alone"
    assert status[-1].accepted > status[-1].refused, status[-1].refusal
