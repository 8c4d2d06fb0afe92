# SPDX-License-Identifier: Apache-2.0
"""The goal preview of a running policy node: labelled, refused with reasons, and never in the way of chunks."""

import time

import numpy as np
import pytest
from rclpy.task import Future
from sensor_msgs.msg import Image, JointState

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.msg import ActionChunk
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.goal_preview import FRAME
from imagewam_ros.preview import BAND
from imagewam_ros.srv import PreviewGoal, SetInstruction

POLICY = "imagewam_ros.nodes.policy_node"
ROBOT = load_embodiment("sim_cell")
TASK = "lift the tray with both hands"


@pytest.fixture
def cameras(probe):
    """Cameras and joints of a cell that stands still; returns what starts them."""

    def start() -> None:
        node = probe.node
        images = {c: node.create_publisher(Image, c.topic, qos.IMAGES_OUT) for c in ROBOT.cameras}
        joints = node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
        pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)

        def now_ns() -> int:
            return node.get_clock().now().nanoseconds

        def send_joints() -> None:
            message = JointState(name=list(ROBOT.joint_names), position=[0.01] * 14)
            message.header.stamp = messages.to_time(now_ns())
            joints.publish(message)

        def send_images() -> None:
            stamp_ns = now_ns()
            for camera, publisher in images.items():
                publisher.publish(messages.from_image(pixels, stamp_ns, camera.frame))

        node.create_timer(0.01, send_joints)
        node.create_timer(0.05, send_images)

    return start


def ask(probe, instruction: str = "", seed: int = 0) -> PreviewGoal.Response:
    request = PreviewGoal.Request(instruction=instruction, seed=seed)
    return probe.call(PreviewGoal, topics.PREVIEW_GOAL, request, once=True)


def test_preview_is_refused_with_the_reason_until_it_can_be_made(spawn, probe, cameras, checkpoint) -> None:
    policy = spawn(POLICY, checkpoint=checkpoint)
    assert probe.change("policy", "configure"), policy.text()
    assert ask(probe, TASK).message == ("the policy is not active, so it takes no observation; activate it first")
    assert probe.change("policy", "activate"), policy.text()
    answer = ask(probe, TASK)
    assert not answer.success and "camera 'head': nothing received yet; is head_camera" in answer.message
    cameras()
    assert probe.until(lambda: ask(probe, TASK).success), policy.text()
    answer = ask(probe)
    assert not answer.success and answer.message == "no instruction is running; name one in the request"
    answer = ask(probe, "lift " * 200)
    assert not answer.success and "the instruction is too long" in answer.message and "shorten it" in answer.message
    assert not answer.image.data
    assert policy.stop() == 0, policy.text()


def test_checkpoint_that_cannot_imagine_says_why(spawn, probe, cameras, checkpoint, tmp_path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint, tmp_path / "acting")
    path = tmp_path / "acting" / "autoencoder" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if not name.startswith("decoder.")}, path)
    policy = spawn(POLICY, checkpoint=tmp_path / "acting", instruction="lift", replan_period_s=2.0)
    chunks = probe.collect(ActionChunk, topics.CHUNK, 10)
    cameras()
    assert probe.change("policy", "configure", "activate"), policy.text()
    assert probe.until(lambda: len(chunks) > 2), policy.text()
    answer = ask(probe)
    assert not answer.success and "has no decoder, so images can be read but none imagined" in answer.message


def test_chunks_keep_coming_while_goals_are_imagined(spawn, probe, cameras) -> None:
    """The shipped policy, one preview after the other against as long a time without."""
    period_s = 1.0
    policy = spawn(POLICY, checkpoint=find_checkpoint("tiny"), instruction=TASK, replan_period_s=period_s)
    chunks: list[ActionChunk] = probe.collect(ActionChunk, topics.CHUNK, 10)
    cameras()
    assert probe.change("policy", "configure", "activate"), policy.text()
    assert probe.until(lambda: len(chunks) >= 3), policy.text()
    assert ask(probe).success, "a first preview, so that pieces have been measured"

    def gaps(seconds: float, busy: bool) -> tuple[np.ndarray, list[PreviewGoal.Response]]:
        first, end, answers = len(chunks), time.monotonic() + seconds, []
        while time.monotonic() < end:
            if busy:
                answers.append(ask(probe, seed=len(answers) % 2))
            time.sleep(0.01)
        stamps = np.array([messages.to_chunk(chunk).stamp_ns for chunk in chunks[first:]])
        return np.diff(stamps) / 1e9, answers

    quiet, _ = gaps(5 * period_s, busy=False)
    busy, answers = gaps(8 * period_s, busy=True)
    assert len(answers) >= 2 and all(answer.success for answer in answers), [answer.message for answer in answers]
    assert np.median(busy) <= np.median(quiet) + 0.05, (quiet, busy)  # one camera period
    assert len(busy) >= 0.7 * 8, (quiet, busy)

    image = answers[0].image
    assert (
        image.header.frame_id == FRAME and image.encoding == "rgb8" and (image.height, image.width) == (64 + BAND, 192)
    )
    assert f"told {TASK!r}" in answers[0].message and "imagined for 0.80 s after" in answers[0].message
    band = np.frombuffer(image.data, dtype=np.uint8).reshape(image.height, image.width, 3)[64:]
    assert (band[..., 0] > 100).all() and (band.min(2) < 50).mean() > 0.4, "a red strip with white words"
    assert not np.array_equal(answers[0].image.data, answers[1].image.data), "another seed, another goal"
    assert messages.stamp_ns(image.header.stamp) > 0
    answer = ask(probe, "do something else")
    assert answer.success and "told 'do something else'" in answer.message
    count = len(chunks)
    assert probe.until(lambda: len(chunks) > count + 1), "asking for another goal changes no instruction"
    assert probe.call(SetInstruction, topics.SET_INSTRUCTION, SetInstruction.Request(instruction="")).success
    assert ask(probe, TASK).success, "a policy that rests has all the time"
    assert policy.stop() == 0, policy.text()


def test_one_preview_at_a_time_and_none_without_gaps(spawn, probe, cameras, checkpoint) -> None:
    policy = spawn(POLICY, checkpoint=checkpoint, instruction="lift", replan_period_s=0.01)
    chunks = probe.collect(ActionChunk, topics.CHUNK, 10)
    cameras()
    assert probe.change("policy", "configure", "activate"), policy.text()
    assert probe.until(lambda: len(chunks) > 3), policy.text()
    client = probe.node.create_client(PreviewGoal, topics.PREVIEW_GOAL)
    assert probe.until(client.service_is_ready)
    time.sleep(0.5)  # so that the policy knows this client

    def begun() -> Future:
        """One of two requests that is being made; the other was refused for it."""
        pair = [client.call_async(PreviewGoal.Request()) for _ in range(2)]
        assert probe.until(lambda: any(future.done() for future in pair)), policy.text()
        pair.sort(key=lambda future: future.done())
        assert pair[1].result().message == "another preview is being made; call again when it is done"
        return pair[0]

    first = begun()
    assert not first.done(), "chunks follow each other without a gap"
    assert probe.until(first.done), policy.text()
    assert not first.result().success and "no time for a preview in 10 s" in first.result().message
    again = begun()
    assert probe.change("policy", "deactivate"), policy.text()
    assert probe.until(again.done) and again.result().message == "the policy stopped: deactivated"
    assert policy.stop() == 0, policy.text()
