# SPDX-License-Identifier: Apache-2.0
"""The recorder in a process of its own: what is published lands in the bag, and trouble ends an episode well."""

import json
import shutil
import subprocess
import sys
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.time import Time
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image, JointState, Joy
from std_srvs.srv import Trigger

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.bag_counts import COUNTS_KEY
from imagewam_ros.data.bag_label import label_episode
from imagewam_ros.data.bag_streams import frame_images, plan_frames, read_streams
from imagewam_ros.data.episode import read_provenance
from imagewam_ros.data.interventions import TAKEOVER
from imagewam_ros.data.recover import recover
from imagewam_ros.msg import ActionChunk, EpisodeStatus, ExecutorCommand, ExecutorEvent, ExecutorStatus
from imagewam_ros.nodes import qos
from imagewam_ros.nodes.recorder_topics import adapted, message_class
from imagewam_ros.srv import SetInstruction

ROBOT = load_embodiment("sim_cell")
MODULE = "imagewam_ros.nodes.recorder_node"
MS = 1_000_000
PATIENT = QoSProfile(depth=1000)
"""Keeps what a busy machine delivers late, so that a loss is the recorder's."""


class Cell:
    """Publishes what a small cell publishes: three cameras at 20 Hz, joints and commands at 200 Hz."""

    def __init__(self, probe: Any) -> None:
        node = probe.node
        self.cameras = {c.name: node.create_publisher(Image, c.topic, PATIENT) for c in ROBOT.cameras}
        self.joints = node.create_publisher(JointState, "joint_states", PATIENT)
        self.commands = node.create_publisher(ExecutorCommand, "executor/command", PATIENT)
        self.chunks = node.create_publisher(ActionChunk, "policy/action_chunk", PATIENT)
        self.sent = dict.fromkeys(("images", "joints", "commands"), 0)
        self.probe, self._running = probe, threading.Event()

    def tick(self, number: int, start_ns: int) -> None:
        """Publish 5 ms of the cell; every tenth tick is a shutter."""
        stamp = Time(nanoseconds=start_ns + number * 5 * MS).to_msg()
        value = number / 1000
        state = JointState(name=list(ROBOT.joint_names), position=[value] * 14, velocity=[0.0] * 14)
        state.header.stamp = stamp
        self.joints.publish(state)
        command = ExecutorCommand(tick=number, nominal=stamp, period_ns=5 * MS, joint_names=list(ROBOT.joint_names))
        command.position = [value + 0.5] * 14
        self.commands.publish(command)
        self.sent["joints"] += 1
        self.sent["commands"] += 1
        if number % 10 == 0:
            for camera, publisher in self.cameras.items():
                publisher.publish(image(camera, number, stamp))
            self.chunks.publish(ActionChunk(contract_hash="abc"))
            self.sent["images"] += 1

    def wait_for_recorder(self) -> None:
        """Return when it subscribes to everything, so that nothing is published in vain."""
        every = (*self.cameras.values(), self.joints, self.commands, self.chunks)
        assert self.probe.until(lambda: all(publisher.get_subscription_count() for publisher in every))

    @property
    def total(self) -> int:
        """Messages published so far."""
        return self.sent["joints"] + self.sent["commands"] + 4 * self.sent["images"]

    def run(self, seconds: float) -> None:
        start_ns, began = time.time_ns(), time.monotonic()
        for number in range(int(seconds * 200)):
            self.tick(number, start_ns)
            time.sleep(max(0.0, began + (number + 1) * 0.005 - time.monotonic()))


def image(camera: str, number: int, stamp: Any) -> Image:
    pixels = np.full((32, 48, 3), number % 250, np.uint8)
    pixels[:, :, 0] = list(ROBOT.camera_names).index(camera)
    message = Image(height=32, width=48, encoding="rgb8", step=3 * 48, data=array("B", pixels.tobytes()))
    message.header.stamp = stamp
    return message


def ask(probe: Any, name: str) -> Any:
    return probe.call(Trigger, f"/episode/{name}", Trigger.Request(), once=True)


def tell(probe: Any, instruction: str) -> Any:
    return probe.call(SetInstruction, "/episode/set_instruction", SetInstruction.Request(instruction=instruction))


def latest(probe: Any) -> list[EpisodeStatus]:
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    return probe.collect(EpisodeStatus, "/episode/status", latched)


def test_an_episode_from_start_to_frames(spawn: Any, probe: Any, tmp_path: Path) -> None:
    cell = Cell(probe)
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    probe.node.create_publisher(ExecutorStatus, "executor/status", latched).publish(ExecutorStatus(tick=7))
    spawn(MODULE, directory=str(tmp_path / "episodes"), recording__free_mb=0)
    statuses = latest(probe)
    assert probe.change("recorder", "configure")
    assert "the recorder is not active" in ask(probe, "start").message
    assert probe.change("recorder", "activate")
    assert "no instruction; set one with /episode/set_instruction" in ask(probe, "start").message
    assert tell(probe, "lift the tray").success
    assert "no episode to label success" in ask(probe, "success").message
    cell.wait_for_recorder()
    begun = ask(probe, "start")
    assert begun.success, begun.message
    assert "already recording" in ask(probe, "start").message
    assert "its instruction stays" in tell(probe, "another").message
    cell.run(2.0)
    assert probe.until(lambda: statuses[-1].messages == cell.total + 1), (statuses[-1], cell.total)
    assert ask(probe, "success").success
    assert "nothing is being recorded" in ask(probe, "stop").message

    folder = Path(begun.message)
    about = read_provenance(folder)
    assert (about.label, about.instruction, about.contract_hash) == ("success", "lift the tray", "abc")
    assert about.action_topic == "/executor/command" and dict(about.cameras)["head"].startswith("/head_camera")
    with AnyReader([folder]) as reader:
        counts = {name: topic.msgcount for name, topic in reader.topics.items()}
    assert counts["/executor/status"] == 1  # published once, long before the start
    assert counts["/joint_states"] == cell.sent["joints"] and counts["/executor/command"] == cell.sent["commands"]
    assert all(counts[topic] == cell.sent["images"] for _, topic in about.cameras)
    recorded = json.loads(custom(folder)[COUNTS_KEY])["topics"]
    assert sum(topic["dropped"] + topic["lost"] for topic in recorded.values()) == 0

    plan = plan_frames(read_streams(folder))
    assert len(plan) >= 38
    np.testing.assert_allclose(plan.actions[:, 0] - plan.positions[:, 0], 0.5 + 10 / 1000, atol=1e-9)
    for row, images in enumerate(frame_images(folder, plan)):
        assert {int(pixels[0, 0, 1]) for pixels in images.values()} == {round(plan.positions[row, 0] * 1000) % 250}
        assert [int(images[name][0, 0, 0]) for name in ROBOT.camera_names] == [0, 1, 2]

    assert ask(probe, "failure").success and read_provenance(folder).label == "failure"
    assert probe.until(lambda: statuses and statuses[-1].label == "failure")
    assert statuses[-1].state == EpisodeStatus.IDLE and statuses[-1].dropped == 0
    assert statuses[-1].messages == sum(counts.values())


def custom(folder: Path) -> dict[str, str]:
    information = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    return dict(information["custom_data"])


def test_missing_topics_are_named(spawn: Any, probe: Any, tmp_path: Path) -> None:
    joints = probe.node.create_publisher(JointState, "joint_states", 10)
    spawn(MODULE, directory=str(tmp_path / "episodes"), instruction="wave", recording__free_mb=0)
    assert probe.change("recorder", "configure", "activate")
    assert probe.until(joints.get_subscription_count)
    message = ask(probe, "start").message
    assert "nobody publishes /head_camera/color/image_raw" in message and "/executor/command" in message
    assert "/joint_states" not in message


def test_unknown_parameters_and_values_are_refused(spawn: Any, probe: Any) -> None:
    process = spawn(MODULE, recording__image_format="jpg")
    assert not probe.change("recorder", "configure")
    assert "unknown image_format 'jpg'; did you mean 'jpeg'" in process.text()


def test_buttons_do_what_services_do(spawn: Any, probe: Any, tmp_path: Path) -> None:
    cell = Cell(probe)
    joy = probe.node.create_publisher(Joy, "joy", 10)
    buttons = {"buttons__start": 0, "buttons__discard": 2, "recording__free_mb": 0, "recording__image_format": "png"}
    spawn(MODULE, directory=str(tmp_path / "episodes"), instruction="wave", **buttons)
    statuses = latest(probe)
    assert probe.change("recorder", "configure", "activate")
    cell.wait_for_recorder()
    assert probe.until(joy.get_subscription_count)

    def press(*pressed: int) -> None:
        joy.publish(Joy(buttons=[int(i in pressed) for i in range(3)]))

    press(0)
    press(0)
    assert probe.until(lambda: statuses and statuses[-1].state == EpisodeStatus.RECORDING)
    cell.run(0.5)
    assert probe.until(lambda: statuses[-1].messages == cell.total)
    press()
    press(2)
    assert probe.until(lambda: statuses[-1].label == "discard" and statuses[-1].state == EpisodeStatus.IDLE)
    folder = Path(statuses[-1].episode)
    assert read_provenance(folder).label == "discard"
    assert dict(read_provenance(folder).cameras)["head"].endswith("/image_raw/compressed")
    assert len(plan_frames(read_streams(folder))) > 5


def test_a_killed_recorder_leaves_a_recoverable_episode(spawn: Any, probe: Any, tmp_path: Path) -> None:
    cell = Cell(probe)
    process = spawn(MODULE, directory=str(tmp_path / "episodes"), instruction="wave", recording__free_mb=0)
    statuses = latest(probe)
    assert probe.change("recorder", "configure", "activate")
    cell.wait_for_recorder()
    folder = Path(ask(probe, "start").message)
    cell.run(2.0)
    assert probe.until(lambda: statuses[-1].messages == cell.total)
    process.kill()
    with pytest.raises(EpisodeError, match="its recording was cut off"):
        read_provenance(folder)
    recover(folder)
    assert read_provenance(folder).instruction == "wave" and read_provenance(folder).label == ""
    assert not read_provenance(folder).interventions and not read_provenance(folder).policy_ran
    assert len(read_streams(folder).joints.stamps_ns) > cell.sent["joints"] - 200


TAKEOVER_RUN = (
    (0, "accepted", ExecutorStatus.ACTIVE, ActionChunk.SOURCE_POLICY),
    (100, "take_over", ExecutorStatus.TAKEOVER, ExecutorEvent.NO_CHUNK),
    (2000, "accepted", ExecutorStatus.TAKEOVER, ActionChunk.SOURCE_TAKEOVER),
    (2020, "accepted", ExecutorStatus.TAKEOVER, ActionChunk.SOURCE_TAKEOVER),
    (2040, "release", ExecutorStatus.HOLDING, ExecutorEvent.NO_CHUNK),
    (2100, "accepted", ExecutorStatus.ACTIVE, ActionChunk.SOURCE_POLICY),
)
"""Events of a run in which a human takes over after 0.1 s and has matched after 2 s: ms, trigger, state, source."""


def test_a_takeover_survives_a_kill_of_the_recorder(spawn: Any, probe: Any, tmp_path: Path) -> None:
    """The spans are the same live and after recovery, also where `topics` leaves the events out."""
    cell = Cell(probe)
    events = probe.node.create_publisher(ExecutorEvent, "executor/event", qos.COMMAND_LOG)
    only = {"topics": "[policy/action_chunk]", "instruction": "wave", "recording__free_mb": 0}
    only["recording__flush_s"] = 0.1
    process = spawn(MODULE, directory=str(tmp_path / "episodes"), **only)
    statuses = latest(probe)
    assert probe.change("recorder", "configure", "activate")
    cell.wait_for_recorder()
    assert probe.until(events.get_subscription_count)

    def play() -> Path:
        folder = Path(ask(probe, "start").message)
        for at_ms, trigger, state, source in TAKEOVER_RUN:
            event = ExecutorEvent(trigger=trigger, state=state, source=source)
            event.header.stamp = Time(nanoseconds=at_ms * MS).to_msg()
            events.publish(event)
        assert probe.until(lambda: statuses[-1].messages == len(TAKEOVER_RUN)), statuses[-1]
        return folder

    whole = play()
    assert ask(probe, "success").success
    assert TAKEOVER == ExecutorStatus.TAKEOVER
    assert read_provenance(whole).interventions == ((2000 * MS, 2020 * MS),) and read_provenance(whole).policy_ran
    torn = play()
    time.sleep(1.0)  # ten flushes
    process.kill()
    recover(torn)
    for folder in (torn, whole):
        found = label_episode(folder, "success")
        assert found.interventions == ((2000 * MS, 2020 * MS),) and found.policy_ran


def test_a_full_disk_ends_the_episode_with_a_readable_bag(spawn: Any, probe: Any, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        cell = Cell(probe)
        spawn(MODULE, directory=str(disk / "episodes"), instruction="wave", recording__free_mb=0)
        statuses = latest(probe)
        assert probe.change("recorder", "configure", "activate")
        cell.wait_for_recorder()
        folder = Path(ask(probe, "start").message)
        cell.run(3.0)
        assert probe.until(lambda: statuses[-1].state == EpisodeStatus.FAILED)
        assert "No space left on device; free some space or choose another disk" in statuses[-1].reason
        streams = read_streams(folder)
        assert len(plan_frames(streams)) > 10
        assert "No space left" in json.loads(custom(folder)[COUNTS_KEY])["failure"]
        shutil.copytree(folder, tmp_path / "kept")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_quality_of_service_follows_the_publishers() -> None:
    reliable, effort = QoSProfile(depth=1), QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    assert adapted([reliable, latched], "std_msgs/msg/String").reliability == QoSReliabilityPolicy.RELIABLE
    assert adapted([reliable, effort], "std_msgs/msg/String").reliability == QoSReliabilityPolicy.BEST_EFFORT
    assert adapted([latched], "std_msgs/msg/String").durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
    assert adapted([latched, reliable], "std_msgs/msg/String").durability == QoSDurabilityPolicy.VOLATILE


def test_types_that_are_not_installed_are_named() -> None:
    assert message_class("sensor_msgs/msg/JointState") is JointState
    with pytest.raises(EpisodeError, match="type hand_msgs/msg/Grip is not installed here; install hand_msgs"):
        message_class("hand_msgs/msg/Grip")


def test_nothing_of_torch_is_loaded() -> None:
    code = "import sys, imagewam_ros.nodes.recorder_node; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
