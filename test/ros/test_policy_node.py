# SPDX-License-Identifier: Apache-2.0
"""Images and joints to chunks: pairing, latest observation wins, instructions, and bad input."""

import re

import numpy as np
import pytest
import yaml
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState

from imagewam_ros.action import RunPolicy
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.paths import share_dir
from imagewam_ros.msg import ActionChunk, ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.srv import SetInstruction

POLICY = "imagewam_ros.nodes.policy_node"
ROBOT = load_embodiment("sim_cell")


def instruct(probe, text: str) -> SetInstruction.Response:
    return probe.call(SetInstruction, topics.SET_INSTRUCTION, SetInstruction.Request(instruction=text))


class Robot:
    """Cameras and joints of a cell that stands still, published by the test itself."""

    def __init__(self, probe) -> None:
        node = self.node = probe.node
        self.images = {c: node.create_publisher(Image, c.topic, qos.IMAGES_OUT) for c in ROBOT.cameras}
        self.joints = node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
        self.silent: set[str] = set()
        self.size, self.late_ns = 128, 0
        self.shutters: list[int] = []
        node.create_timer(0.005, self._send_joints)
        node.create_timer(0.05, self._send_images)

    def _send_joints(self) -> None:
        now_ns = self.node.get_clock().now().nanoseconds
        message = JointState(name=list(ROBOT.joint_names), position=[0.01] * 14)
        message.header.stamp = messages.to_time(now_ns)
        self.joints.publish(message)

    def _send_images(self) -> None:
        now_ns = self.node.get_clock().now().nanoseconds - self.late_ns
        self.shutters.append(now_ns)
        pixels = np.full((self.size, self.size, 3), 100, dtype=np.uint8)
        for camera, publisher in self.images.items():
            if camera.name not in self.silent:
                publisher.publish(messages.from_image(pixels, now_ns, camera.frame))


def test_chunks_come_by_observation_time(spawn, probe, checkpoint) -> None:
    policy = spawn(POLICY, checkpoint=checkpoint, replan_period_s=0.2, seed=40)
    chunks: list[ActionChunk] = probe.collect(ActionChunk, topics.CHUNK, 10)
    robot = Robot(probe)
    assert probe.change("policy", "configure", "activate"), policy.text()
    probe.meet("policy")
    assert not probe.until(lambda: chunks, 1.0), "no instruction, no chunk"
    answer = instruct(probe, "  lift the   tray ")
    assert answer.success and answer.message.endswith(": lift the tray")
    assert probe.until(lambda: len(chunks) >= 4), policy.text()
    received = [messages.to_chunk(message) for message in chunks[:4]]
    stamps = np.array([chunk.stamp_ns for chunk in received])
    assert set(stamps) <= set(robot.shutters)
    assert (np.diff(stamps) >= 0.17e9).all()
    for chunk in received:
        assert chunk.joint_names == ROBOT.joint_names and chunk.positions.shape == (16, 14)
        assert chunk.ready_ns > chunk.stamp_ns + chunk.inference_s * 1e9
        assert chunk.instruction_id == answer.instruction_id and len(chunk.contract_hash) == 16
    assert [chunk.seed for chunk in received] == [40, 41, 42, 43]
    assert [chunk.sequence for chunk in received] == sorted({chunk.sequence for chunk in received})

    slower = [Parameter("replan_period_s", value=1.0).to_parameter_msg(), Parameter("seed", value=1).to_parameter_msg()]
    results = probe.call(SetParameters, "/policy/set_parameters", SetParameters.Request(parameters=slower)).results
    assert results[0].successful and not results[1].successful
    count = len(chunks)
    assert probe.until(lambda: len(chunks) >= count + 3)
    assert messages.to_chunk(chunks[-1]).stamp_ns - messages.to_chunk(chunks[-2]).stamp_ns >= 0.95e9

    assert instruct(probe, "").message.endswith("none, the policy rests")
    count = len(chunks)
    assert not probe.until(lambda: len(chunks) > count + 1, 1.5)
    assert policy.stop() == 0, policy.text()


def test_bad_streams_are_named_and_nothing_is_inferred(spawn, probe, checkpoint) -> None:
    policy = spawn(POLICY, checkpoint=checkpoint, instruction="lift", sync__max_age_s=0.5)
    chunks = probe.collect(ActionChunk, topics.CHUNK, 10)
    assert probe.change("policy", "configure", "activate"), policy.text()
    assert probe.until(lambda: "camera 'head': nothing received yet; is head_camera/color/image_raw" in policy.text())
    robot = Robot(probe)
    robot.size = 64
    assert probe.until(lambda: "sends 64x64, the robot YAML says 128x128" in policy.text()), policy.text()
    assert not chunks
    robot.size = 128
    assert probe.until(lambda: chunks), policy.text()
    robot.silent.add("left_wrist")
    text = (
        r"camera 'left_wrist' silent for \d+\.\d+ s \(limit 0\.50 s\); is left_wrist_camera/color/image_raw published\?"
    )
    assert probe.until(lambda: re.search(text, policy.text())), policy.text()
    count = len(chunks)
    assert not probe.until(lambda: len(chunks) > count + 1, 1.0)
    robot.silent.clear()
    assert probe.until(lambda: len(chunks) > count + 1), policy.text()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"robot": "sim_cel"}, "unknown robot 'sim_cel'; did you mean 'sim_cell'?"),
        ({"checkpoint": "/absent/policy"}, "no checkpoint directory /absent/policy; check the path"),
        ({"device": "cuda:7"}, "device 'cuda:7' was asked for and "),
        ({"device": "gpu"}, "unknown device 'gpu'; use auto, cpu, cuda or cuda:N"),
        ({"replan_period_s": 0.0}, "replan_period_s must be 0.01 to 10, found 0.0"),
        ({"delay_quantile": 0.0}, "delay_quantile must be in (0, 1], found 0.0"),
        ({"sampling.chunking": "soft"}, "chunking must be one of none, frozen, guided, found 'soft'"),
        ({"cpu_threads": -1}, "cpu_threads must not be negative, found -1"),
        ({"replan_period": 1.0}, "unknown parameter 'replan_period'; did you mean 'replan_period_s'?"),
    ],
)
def test_bad_configuration_is_named(ros, checkpoint, given, text) -> None:
    assert text in refusal({"checkpoint": str(checkpoint)} | given)


def test_checkpoint_of_another_robot_is_refused_line_by_line(ros, checkpoint, tmp_path) -> None:
    robot = yaml.safe_load((share_dir() / "config" / "robots" / "sim_cell.yaml").read_text())
    robot["arms"][0]["joints"][1]["name"] = "left_lift"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(robot))
    text = refusal({"checkpoint": str(checkpoint), "robot": str(tmp_path / "other.yaml")})
    assert "checkpoint and robot 'sim_cell' differ: joint_names: [1] 'left_shoulder' against 'left_lift'" in text


def refusal(given: dict[str, object]) -> str:
    """The reason for which a policy node with these parameters does not configure."""
    from imagewam_ros.nodes.policy_node import PolicyNode

    node = PolicyNode()
    for name, value in given.items():
        node.declare_parameter(name, value)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    return str(node.diagnostics.message)


def test_a_run_in_shadow_needs_an_executor_that_only_watches(spawn, probe, checkpoint) -> None:
    policy = spawn(POLICY, checkpoint=checkpoint)
    Robot(probe)
    status = probe.node.create_publisher(ExecutorStatus, topics.STATUS, qos.STATUS)
    client = ActionClient(probe.node, RunPolicy, topics.RUN)
    assert probe.change("policy", "configure", "activate"), policy.text()
    probe.meet("policy")
    assert probe.until(client.server_is_ready)

    def accepted(mode: int) -> bool:
        sent = client.send_goal_async(RunPolicy.Goal(instruction="lift", timeout_s=30.0, mode=mode))
        assert probe.until(sent.done)
        return bool(sent.result().accepted)

    run, shadow = RunPolicy.Goal.RUN, RunPolicy.Goal.SHADOW
    assert not accepted(7) and probe.until(lambda: "mode 7 is unknown; use RUN (0) or SHADOW (1)" in policy.text())
    assert not accepted(shadow) and probe.until(lambda: "but the executor moves the arms" in policy.text())
    status.publish(ExecutorStatus(state=ExecutorStatus.HOLDING, shadow=True))
    assert probe.until(lambda: accepted(shadow)), "once the status was heard"
    assert not accepted(run)
    assert instruct(probe, "").success, "which ends the run"
    assert probe.until(lambda: not accepted(run) and "the executor only watches the policy" in policy.text())


def test_run_has_a_limited_time_and_a_reason_for_its_end(spawn, probe, checkpoint) -> None:
    policy = spawn(POLICY, checkpoint=checkpoint, replan_period_s=0.2)
    chunks = probe.collect(ActionChunk, topics.CHUNK, 10)
    Robot(probe)
    status = probe.node.create_publisher(ExecutorStatus, topics.STATUS, qos.STATUS)
    status.publish(ExecutorStatus(state=ExecutorStatus.HOLDING, accepted=5))
    client = ActionClient(probe.node, RunPolicy, topics.RUN)
    assert probe.change("policy", "configure"), policy.text()
    probe.meet("policy")
    assert probe.until(client.server_is_ready)

    def send(instruction: str = "lift", timeout_s: float = 60.0):
        feedback: list = []
        goal = RunPolicy.Goal(instruction=instruction, timeout_s=timeout_s, seed=7)
        sent = client.send_goal_async(goal, feedback_callback=lambda message: feedback.append(message.feedback))
        assert probe.until(sent.done)
        return sent.result(), feedback

    def result(handle) -> RunPolicy.Result:
        ended = handle.get_result_async()
        assert probe.until(ended.done), policy.text()
        return ended.result().result

    assert not send()[0].accepted and probe.until(lambda: "the policy is not active" in policy.text())
    assert probe.change("policy", "activate"), policy.text()
    assert not send("  ")[0].accepted and probe.until(lambda: "an instruction and a timeout_s" in policy.text())

    timed, feedback = send(timeout_s=3.0)
    assert probe.until(lambda: chunks)
    assert not send()[0].accepted and probe.until(lambda: "another run is not over yet" in policy.text())
    end = result(timed)
    assert end.success and end.reason == "ran for 3 s"
    assert feedback and feedback[-1].state == ExecutorStatus.HOLDING
    assert messages.to_chunk(chunks[0]).seed == 7
    count = len(chunks)
    assert not probe.until(lambda: len(chunks) > count + 1, 1.0), "without an instruction the policy rests"

    cancelled, _ = send()
    assert probe.until(cancelled.cancel_goal_async().done)
    end = result(cancelled)
    assert not end.success and end.reason == "cancelled"

    replaced, _ = send()
    assert instruct(probe, "something else").success
    assert result(replaced).reason == "another instruction was set"
    count = len(chunks)
    assert probe.until(lambda: len(chunks) > count + 2), "the other instruction lives on"

    stopped, _ = send()
    status.publish(ExecutorStatus(state=ExecutorStatus.FAULTED, reason="left arm's joint states silent"))
    end = result(stopped)
    assert not end.success and end.reason == "the executor faulted: left arm's joint states silent"

    status.publish(ExecutorStatus(state=ExecutorStatus.HOLDING))
    begun: list = []
    assert probe.until(lambda: begun.append(send()[0]) or begun[-1].accepted)
    probe.node.destroy_publisher(status)
    end = result(begun[-1])
    assert not end.success and end.reason == "nobody tells the executor's status any more; did its process end?"


def test_committed_rows_follow_the_measured_delays_and_a_late_chunk_says_so(spawn, probe, checkpoint) -> None:
    given = {"sampling__chunking": "frozen", "replan_period_s": 0.05, "delay_quantile": 1.0, "sync__max_age_s": 5.0}
    policy = spawn(POLICY, checkpoint=checkpoint, instruction="lift", **given)
    chunks: list[ActionChunk] = probe.collect(ActionChunk, topics.CHUNK, qos.CHUNKS_IN)
    robot = Robot(probe)
    assert probe.change("policy", "configure"), policy.text()
    probe.meet("policy")
    assert probe.change("policy", "activate"), policy.text()
    assert probe.until(lambda: len(chunks) >= 12), policy.text()
    received = [messages.to_chunk(message) for message in chunks[:12]]
    tick_ns = ROBOT.period_ns
    delays = [chunk.ready_ns - chunk.stamp_ns + tick_ns for chunk in received]
    assert [chunk.committed_rows for chunk in received[:3]] == [0, 0, 0], (
        "two chunks are warm-up, the third is measured"
    )
    for i, chunk in enumerate(received[3:], start=3):
        before = received[i - 1]
        due = chunk.stamp_ns + chunk.period_ns * (1 + np.arange(chunk.rows))
        covered = int((due - chunk.stamp_ns <= max(delays[2:i])).sum())
        left = int((due <= before.due_ns(before.rows - 1)).sum())
        assert chunk.committed_rows == min(covered, left, chunk.rows - 1)

    text = r"chunk \d+ took \d\.\d{3} s, its \d+ committed rows were forecast to cover \d\.\d{3} s; rows that are past"

    def said() -> bool:
        """Delay the images until no chunk took so long, whatever a busy machine did before."""
        past = [messages.to_chunk(message) for message in list(chunks)]
        robot.late_ns = max(chunk.ready_ns - chunk.stamp_ns for chunk in past) + 200_000_000
        return probe.until(lambda: re.search(text, policy.text()), 3.0)

    assert any(said() for _ in range(8)), policy.text()
