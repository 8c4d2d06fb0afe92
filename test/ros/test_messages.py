# SPDX-License-Identifier: Apache-2.0
"""Conversions between messages and core values, there and back, and what they refuse."""

import dataclasses
import re
import sys
import zlib

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import JointState as JointStateMsg

from imagewam_ros.control.ledger import Travel
from imagewam_ros.control.report import State, Status
from imagewam_ros.core.embodiment import Camera
from imagewam_ros.core.errors import EmbodimentMismatch, StaleObservation
from imagewam_ros.core.schema import ActionChunk, Command, JointState, Source
from imagewam_ros.msg import ExecutorEvent, ExecutorStatus
from imagewam_ros.nodes import messages
from imagewam_ros.nodes.diagnostics import ERROR, OK, WARN
from imagewam_ros.nodes.executor_report import diagnosis

HEAD = Camera("head", "head_camera/color/image_raw", "head_optical_frame", 6, 4, 20.0)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)


def test_time_there_and_back() -> None:
    for ns in (0, 1, 999_999_999, 1_000_000_000, 1_763_000_000_123_456_789):
        assert messages.stamp_ns(messages.to_time(ns)) == ns


def test_image_there_and_back() -> None:
    message = messages.from_image(IMAGE, 5, HEAD.frame)
    assert (message.header.frame_id, messages.stamp_ns(message.header.stamp)) == (HEAD.frame, 5)
    np.testing.assert_array_equal(messages.to_image(message, HEAD), IMAGE)


def test_bgr_and_padded_rows() -> None:
    message = messages.from_image(IMAGE[..., ::-1], 0, "")
    message.encoding = "bgr8"
    np.testing.assert_array_equal(messages.to_image(message, HEAD), IMAGE)
    padded = np.concatenate([IMAGE.reshape(4, 18), np.zeros((4, 2), np.uint8)], axis=1)
    message.encoding, message.step, message.data = "rgb8", 20, padded.tobytes()
    np.testing.assert_array_equal(messages.to_image(message, HEAD), IMAGE)


def test_compressed_image_is_rgb() -> None:
    _, png = cv2.imencode(".png", IMAGE[..., ::-1])
    np.testing.assert_array_equal(messages.to_image(CompressedImage(format="png", data=png.tobytes()), HEAD), IMAGE)


def test_a_picture_that_would_take_all_memory_is_not_decoded() -> None:
    _, png = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))
    bomb = png.tobytes()
    with pytest.raises(EmbodimentMismatch, match="sends a picture of 64x64, .* says 6x4; it is not decoded"):
        messages.to_image(CompressedImage(format="png", data=bomb), HEAD)


def test_a_picture_that_claims_the_impossible_is_refused() -> None:
    _, encoded = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))
    png = bytearray(encoded.tobytes())
    png[16:24] = (65535).to_bytes(4, "big") * 2  # width and height of its header
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    with pytest.raises(EmbodimentMismatch, match="camera 'head' sends a picture that is not decoded: .*/compressed"):
        messages.to_image(CompressedImage(format="png", data=bytes(png)), HEAD)


def test_a_chunk_of_too_many_rows_is_refused() -> None:
    message = messages.from_chunk(ActionChunk(0, 1, ("a",), np.zeros((2001, 1)), sequence=7))
    with pytest.raises(EmbodimentMismatch, match="chunk 7 holds 2001 rows, at most 2000 are taken"):
        messages.to_chunk(message)


def test_wrong_images_are_refused(monkeypatch) -> None:
    message = messages.from_image(IMAGE[:, :4], 0, "")
    with pytest.raises(EmbodimentMismatch, match="camera 'head' sends 4x4, the robot YAML says 6x4"):
        messages.to_image(message, HEAD)
    message = messages.from_image(IMAGE, 0, "")
    message.encoding = "mono8"
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    with pytest.raises(EmbodimentMismatch, match="sends encoding 'mono8', expected rgb8 or bgr8; set the driver's"):
        messages.to_image(message, HEAD)
    message.encoding, message.data = "rgb8", b"\x00" * 5
    with pytest.raises(EmbodimentMismatch, match="sends 5 bytes with rows of 18, expected 4 rows of at least 18"):
        messages.to_image(message, HEAD)
    for data in (b"", b"not an image"):
        with pytest.raises(
            EmbodimentMismatch, match=f"sends {len(data)} bytes of format 'jpeg' that cannot be decoded"
        ):
            messages.to_image(CompressedImage(format="jpeg", data=data), HEAD)


STAND_IN = """
import numpy as np
class CvBridgeError(TypeError): pass
class CvBridge:
    def imgmsg_to_cv2(self, message, desired_encoding):
        if message.encoding != "mono8":
            raise CvBridgeError(f"[{message.encoding}] is not a color format")
        assert desired_encoding == "rgb8"
        grey = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)
        return np.repeat(grey[..., None], 3, axis=2)
"""


def test_rarer_encodings_go_through_cv_bridge_where_it_is_installed(tmp_path, monkeypatch) -> None:
    (tmp_path / "cv_bridge.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
    message = messages.from_image(IMAGE, 0, "")
    message.encoding, message.step, message.data = "mono8", 6, np.ascontiguousarray(IMAGE[..., 0]).tobytes()
    np.testing.assert_array_equal(messages.to_image(message, HEAD), np.repeat(IMAGE[..., :1], 3, axis=2))
    message.encoding = "odd"
    with pytest.raises(EmbodimentMismatch, match=r"'odd', expected rgb8 or bgr8, and cv_bridge cannot .*\[odd\]"):
        messages.to_image(message, HEAD)
    sys.modules.pop("cv_bridge")


def test_joint_state_is_reordered_and_extra_joints_dropped() -> None:
    message = JointStateMsg(name=["b", "x", "a"], position=[2.0, 9.0, 1.0], velocity=[0.2, 0.9, 0.1])
    message.header.stamp = messages.to_time(7)
    state = messages.to_joint_state(message, ("a", "b"))
    assert state.stamp_ns == 7
    np.testing.assert_array_equal(state.position, [1, 2])
    np.testing.assert_array_equal(state.velocity, [0.1, 0.2])
    message.velocity = []
    np.testing.assert_array_equal(messages.to_joint_state(message, ("a", "b")).velocity, [0, 0])


def test_wrong_joint_states_are_refused() -> None:
    with pytest.raises(
        EmbodimentMismatch, match=re.escape("joint_states lacks b, c; found a. Do the driver's joint names")
    ):
        messages.to_joint_state(JointStateMsg(name=["a"], position=[0.0]), ("a", "b", "c"))
    with pytest.raises(EmbodimentMismatch, match="names 2 joints and gives 1 positions"):
        messages.to_joint_state(JointStateMsg(name=["a", "b"], position=[0.0]), ("a", "b"))
    with pytest.raises(StaleObservation, match="position of b is not a number"):
        messages.to_joint_state(JointStateMsg(name=["a", "b"], position=[0.0, np.nan]), ("a", "b"))


def test_joint_state_there_and_back() -> None:
    state = JointState(123, ("a", "b"), np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    again = messages.to_joint_state(messages.from_joint_state(state), ("a", "b"))
    np.testing.assert_array_equal(again.position, state.position)
    np.testing.assert_array_equal(again.velocity, state.velocity)
    assert again.stamp_ns == 123


def chunk() -> ActionChunk:
    return ActionChunk(
        stamp_ns=1_500_000_000,
        period_ns=50_000_000,
        joint_names=("a", "b"),
        positions=RNG.normal(size=(3, 2)),
        first_row_offset_periods=0.5,
        sequence=12,
        source=Source.TELEOP,
        ready_ns=1_600_000_000,
        instruction_id=4,
        contract_hash="cafe",
        committed_rows=1,
        spread=np.array([0.25, 0.5]),
        seed=-3,
        denoise_steps=10,
        inference_s=0.125,
    )


def test_chunk_there_and_back() -> None:
    before, after = chunk(), messages.to_chunk(messages.from_chunk(chunk()))
    np.testing.assert_array_equal(after.spread, before.spread)
    for name in set(ActionChunk.__dataclass_fields__) - {"positions", "spread"}:
        assert getattr(after, name) == getattr(before, name), name
    message = messages.from_chunk(before)
    np.testing.assert_array_equal(messages.to_chunk(message).positions, before.positions)


def test_wrong_chunks_are_refused() -> None:
    message = messages.from_chunk(chunk())
    message.rows = 4
    with pytest.raises(EmbodimentMismatch, match="chunk 12 holds 6 positions, expected 4 rows of 2 joints"):
        messages.to_chunk(message)
    message.rows, message.source = 3, 9
    with pytest.raises(EmbodimentMismatch, match="chunk 12 has unknown source 9"):
        messages.to_chunk(message)


def test_command_there_and_back() -> None:
    command = Command(3, 15, 5, ("a",), np.array([1.0]), np.array([2.0]), np.array([3.0]))
    again = messages.to_command(messages.from_command(command, sent_ns=16))
    assert (again.tick, again.nominal_ns, again.period_ns, again.joint_names) == (3, 15, 5, ("a",))
    assert (again.position[0], again.velocity[0], again.acceleration[0]) == (1, 2, 3)
    np.testing.assert_array_equal(messages.to_values(messages.from_values(command.position)), [1.0])
    assert messages.from_target(command, 15).position[0] == 1.0


def test_trajectory_stamps_its_points() -> None:
    sample = (np.array([1.0]), np.array([2.0]), np.array([3.0]))
    message = messages.from_trajectory(["a"], 2_000_000_001, [0, 1_500_000_000], [sample, sample])
    assert messages.stamp_ns(message.header.stamp) == 2_000_000_001
    assert (message.points[1].time_from_start.sec, message.points[1].time_from_start.nanosec) == (1, 500_000_000)
    played = messages.to_trajectory(message)
    assert played.stamp_ns == 2_000_000_001 and played.times_ns == (0, 1_500_000_000)
    np.testing.assert_array_equal(played.positions, [[1.0], [1.0]])
    message.points[0].accelerations = []
    assert messages.to_trajectory(message).accelerations is None


def test_intrinsics_point_at_the_centre() -> None:
    info = messages.from_intrinsics(HEAD, np.pi / 2, 0)
    np.testing.assert_allclose((info.k[0], info.k[2], info.k[5], info.width), (2.0, 2.5, 1.5, 6))


def status(**changes: object) -> Status:
    travel = {"left": Travel(3.0, 1.5, 2, 1), "right": Travel(3.0, 2.9)}
    return dataclasses.replace(Status(State.RUNNING, "running chunk 3 of policy", tick=9, travel=travel), **changes)


def test_status_tells_who_has_the_arms_and_where_travel_went() -> None:
    taken = status(state=State.TAKEOVER, reason="a human has the left arm", taken_over=("left",), guarded_ticks=4)
    message = messages.from_status(taken, None, 200.0, 5)
    assert (message.state, list(message.taken_over)) == (ExecutorStatus.TAKEOVER, ["left"])
    assert (message.reason, message.guarded_ticks) == ("a human has the left arm", 4)
    assert list(message.arms) == ["left", "right"]
    assert list(message.travel_predicted) == [3.0, 3.0] and list(message.travel_executed) == [1.5, 2.9]
    assert list(message.gripper_events) == [2, 0] and list(message.gripper_events_lost) == [1, 0]


def test_diagnosis_warns_of_lost_travel() -> None:
    level, text, values = diagnosis(status())
    assert (level, text) == (
        WARN,
        "running: running chunk 3 of policy; left arm executes little of its predicted travel",
    )
    assert values["left_travel"].startswith("predicted 3.00 executed 1.50 lost 1.50 rad; gripper events predicted 2")
    assert diagnosis(status(travel={"left": Travel(1.0, 0.1)}))[0] == OK, "too little to judge"
    assert diagnosis(status(state=State.FAULTED))[0] == ERROR


def test_event_tells_of_no_chunk_unless_one_was_judged() -> None:
    event = messages.from_event(State.HOLDING, 7, "hold", "asked to hold", 1_000_000_002)
    assert (event.tick, event.trigger, event.state, event.reason) == (
        7,
        "hold",
        ExecutorStatus.HOLDING,
        "asked to hold",
    )
    assert event.source == ExecutorEvent.NO_CHUNK and event.header.stamp.nanosec == 2
