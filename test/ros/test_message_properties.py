# SPDX-License-Identifier: Apache-2.0
"""Messages and values of core for any content: nothing is lost on the way there and back, through the wire too."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from sensor_msgs.msg import JointState as JointStateMsg
from trajectory_msgs.msg import JointTrajectory

from imagewam_ros.core.embodiment import Camera
from imagewam_ros.core.errors import EmbodimentMismatch
from imagewam_ros.core.schema import ActionChunk, Command, JointState, Source
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.msg import ExecutorCommand
from imagewam_ros.nodes import messages, qos, topics

STAMPS = st.integers(0, 2**31 * 10**9 - 1)
NAMES = st.lists(st.text("abc_", min_size=1, max_size=6), min_size=1, max_size=6, unique=True).map(tuple)
SEEDS = st.integers(0, 10_000)


def wired(message):
    """The message as it arrives at another process."""
    return deserialize_message(serialize_message(message), type(message))


@given(STAMPS)
def test_stamps(ns):
    found = messages.to_time(ns)
    assert messages.stamp_ns(found) == ns and 0 <= found.nanosec < 10**9


@settings(max_examples=25)
@given(STAMPS, NAMES, SEEDS, st.integers(1, 20), st.sampled_from(list(Source)))
def test_chunks(stamp, names, seed, rows, source):
    rng = np.random.default_rng(seed)
    chunk = ActionChunk(
        stamp, int(rng.integers(1, 10**9)), names, rng.normal(size=(rows, len(names))),
        first_row_offset_periods=float(rng.integers(0, 3)), sequence=int(rng.integers(2**31)), source=source,
        ready_ns=stamp, instruction_id=3, contract_hash="0123456789abcdef", committed_rows=rows - 1,
        spread=rng.random(len(names)).astype(np.float32), seed=int(rng.integers(2**31)), denoise_steps=10,
        inference_s=0.5,
    )  # fmt: skip
    back = messages.to_chunk(wired(messages.from_chunk(chunk)))
    for name in ActionChunk.__dataclass_fields__:
        assert np.array_equal(getattr(back, name), getattr(chunk, name)), name


@settings(max_examples=25)
@given(STAMPS, NAMES, SEEDS, st.integers(0, 2**40))
def test_commands(stamp, names, seed, tick):
    parts = np.random.default_rng(seed).normal(size=(3, len(names)))
    command = Command(tick, stamp, 5_000_000, names, *parts)
    message = wired(messages.from_command(command, stamp))
    assert isinstance(message, ExecutorCommand)
    back = messages.to_command(message)
    for name in Command.__dataclass_fields__:
        assert np.array_equal(getattr(back, name), getattr(command, name)), name


@settings(max_examples=25)
@given(STAMPS, NAMES, SEEDS)
def test_joint_states_in_any_order(stamp, names, seed):
    rng = np.random.default_rng(seed)
    state = JointState(stamp, names, rng.normal(size=len(names)), rng.normal(size=len(names)))
    order = rng.permutation(len(names))
    shuffled = JointState(stamp, tuple(names[i] for i in order), state.position[order], state.velocity[order])
    back = messages.to_joint_state(wired(messages.from_joint_state(shuffled)), names)
    assert (back.stamp_ns, back.joint_names) == (stamp, names)
    assert np.array_equal(back.position, state.position) and np.array_equal(back.velocity, state.velocity)


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 5), SEEDS, st.sampled_from(messages.ENCODINGS))
def test_images_with_any_padding_of_rows(height, width, padding, seed, encoding):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    sent = pixels[..., ::-1] if encoding == "bgr8" else pixels
    rows = np.pad(sent.reshape(height, -1), ((0, 0), (0, padding)), constant_values=77)
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1], data=rows.tobytes())
    camera = Camera("head", "t", "f", width, height, 20.0)
    assert np.array_equal(messages.to_image(wired(message), camera), pixels)


@settings(max_examples=20)
@given(st.binary(max_size=60))
def test_any_bytes_as_a_picture_are_a_picture_or_a_reason(data):
    with pytest.raises(EmbodimentMismatch, match=r"cannot be decoded; use jpeg or png|the robot YAML says 6x4"):
        messages.to_image(CompressedImage(format="jpeg", data=data), Camera("head", "t", "f", 6, 4, 20.0))


@settings(max_examples=25)
@given(NAMES, SEEDS, st.integers(1, 6), STAMPS)
def test_trajectories(names, seed, points, start):
    rng = np.random.default_rng(seed)
    offsets = np.cumsum(rng.integers(1, 3 * 10**9, points)).tolist()
    samples = [tuple(rng.normal(size=(3, len(names)))) for _ in offsets]
    message = wired(messages.from_trajectory(names, start, offsets, samples))
    back = messages.to_trajectory(message)
    assert (back.stamp_ns, back.times_ns, back.joint_names) == (start, tuple(offsets), names)
    for found, part in zip((back.positions, back.velocities, back.accelerations), range(3), strict=True):
        assert np.array_equal(found, [sample[part] for sample in samples])


def test_a_trajectory_without_points_is_empty():
    back = messages.to_trajectory(JointTrajectory(joint_names=["a", "b"]))
    assert back.times_ns == () and back.positions.shape == (0, 2) and back.velocities is None


@given(st.lists(st.floats(allow_nan=False), max_size=8))
def test_values(values):
    array = np.array(values, dtype=float)
    found = messages.to_values(wired(messages.from_values(array)))
    assert np.array_equal(found, array)
    found[:] = 0.0  # a copy of its own, not a view of the message


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_chunk_of_another_length_is_refused(rows, extra):
    message = ActionChunkMsg(sequence=4, joint_names=["a", "b"], rows=rows, positions=[0.0] * (2 * rows + extra))
    if extra == 0:
        assert messages.to_chunk(message).positions.shape == (rows, 2)
        return
    text = f"chunk 4 holds {2 * rows + extra} positions, expected {rows} rows of 2 joints"
    with pytest.raises(EmbodimentMismatch, match=text):
        messages.to_chunk(message)


def test_a_nan_in_a_velocity_is_no_reason_to_stop():
    message = JointStateMsg(name=["a"], position=[1.0], velocity=[float("nan")])
    assert messages.to_joint_state(message, ("a",)).velocity.tolist() == [0.0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_topics_are_relative_and_name_their_side(side):
    for name in (topics.forward(side), topics.trajectory(side), topics.gripper(side), topics.leader(side)):
        assert name.startswith(side) and not name.startswith("/")


def test_no_fixed_topic_is_absolute_or_named_twice():
    names = [value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str)]
    assert len(set(names)) == len(names)
    assert not any(name.startswith(("/", "~")) for name in names)


def test_topics_beside_an_image():
    assert topics.camera_info("head_camera/color/image_raw") == "head_camera/color/camera_info"
    assert topics.compressed("head_camera/color/image_raw") == "head_camera/color/image_raw/compressed"


def test_publishers_serve_their_subscribers():
    """Best-effort subscriptions match both kinds; a reliable one would not hear a best-effort driver."""
    from rclpy.qos import QoSCompatibility, qos_check_compatible

    pairs = [(qos.IMAGES_OUT, qos.IMAGES), (qos.JOINT_STATES_OUT, qos.JOINT_STATES), (qos.CHUNKS, qos.CHUNKS_IN)]
    pairs += [(qos.STATUS, qos.STATUS), (qos.COMMAND_LOG, qos.COMMAND_LOG), (qos.COMMANDS, qos.COMMANDS)]
    for publisher, subscriber in pairs:
        compatibility, reason = qos_check_compatible(publisher, subscriber)
        assert compatibility != QoSCompatibility.ERROR, reason


def test_only_the_status_is_latched():
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile

    latched = {
        name
        for name, value in vars(qos).items()
        if isinstance(value, QoSProfile) and value.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
    }
    assert latched == {"STATUS"}
    assert Time() == messages.to_time(0)
