# SPDX-License-Identifier: Apache-2.0
"""One pairing rule for live topics and bags."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, StaleObservation
from imagewam_ros.core.paths import share_dir
from imagewam_ros.core.sync import JOINTS, SyncConfig, Synchroniser, frames, interpolate, nearest

MS = 1_000_000
CONFIG = SyncConfig(image_tolerance_s=0.02, joint_gap_s=0.05, max_age_s=0.2)
TOPICS = {"head": "head_camera/color/image_raw", "left_wrist": "left_wrist_camera/color/image_raw"}


def image(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value % 256, dtype=np.uint8)


def joints(stamp_ns: int) -> np.ndarray:
    """A straight line in time, so that interpolation has one right answer: rad per s."""
    return np.array([stamp_ns / 1e9, -2 * stamp_ns / 1e9])


def live(head: list[int], wrist: list[int], joint_stamps: list[int]) -> Synchroniser:
    sync = Synchroniser(TOPICS, JOINTS, CONFIG)
    for camera, stamps in (("head", head), ("left_wrist", wrist)):
        for stamp in stamps:
            sync.add_image(camera, stamp, image(stamp // MS))
    for stamp in joint_stamps:
        sync.add_joints(stamp, joints(stamp))
    return sync


def test_joints_are_interpolated_to_the_shutter() -> None:
    sync = live([103 * MS], [110 * MS], [100 * MS, 105 * MS])
    frame = sync.newest()
    assert frame is not None and frame.stamp_ns == 103 * MS
    np.testing.assert_allclose(frame.positions, joints(103 * MS), atol=1e-12)
    assert frame.ages_ns == {"head": 0, "left_wrist": -7 * MS, JOINTS: 3 * MS}


def test_a_sample_at_the_shutter_is_taken_as_it_is() -> None:
    positions = np.array([[0.1], [0.7]])
    assert interpolate([5, 9], positions, 9, 1)[0] == 0.7


@pytest.mark.parametrize("at", [99, 201])
def test_no_extrapolation(at: int) -> None:
    with pytest.raises(StaleObservation, match=re.escape(f"no joint_states around {at} ns: found 100 to 200 ns")):
        interpolate([100, 200], np.zeros((2, 1)), at, 1000)


def test_a_gap_in_the_joints_is_not_bridged() -> None:
    with pytest.raises(StaleObservation, match=r"neighbours at most 0\.05 s apart"):
        interpolate([0, 60 * MS], np.zeros((2, 1)), 30 * MS, CONFIG.joint_gap_ns)
    with pytest.raises(StaleObservation, match="found no samples"):
        interpolate([], np.zeros((0, 1)), 30 * MS, CONFIG.joint_gap_ns)


def test_nearest_prefers_the_earlier_of_two_and_respects_the_tolerance() -> None:
    stamps = np.array([10, 20, 40])
    np.testing.assert_array_equal(nearest(stamps, np.array([15, 31, 29, 55]), 9), [0, 2, 1, -1])
    np.testing.assert_array_equal(nearest(np.array([], dtype=np.int64), np.array([1]), 9), [-1])


def test_image_without_partner_makes_no_frame() -> None:
    found = frames({"head": [0, 50 * MS], "left_wrist": [51 * MS]}, [0, 40 * MS, 80 * MS], np.zeros((3, 1)), CONFIG)
    assert [frame.stamp_ns for frame in found] == [50 * MS]
    assert found[0].image_index == {"head": 1, "left_wrist": 0}


def test_one_camera_alone() -> None:
    found = frames({"head": [0, 10]}, [0, 10], np.zeros((2, 1)), CONFIG)
    assert [frame.stamp_ns for frame in found] == [0, 10]


def test_latest_observation_wins_and_carries_its_own_images() -> None:
    sync = live([0, 50 * MS, 100 * MS], [0, 50 * MS, 100 * MS], list(range(0, 106 * MS, 5 * MS)))
    observation = sync.observation(110 * MS, "lift the tray", instruction_id=3)
    assert observation is not None and observation.stamp_ns == 100 * MS
    assert {int(value[0, 0, 0]) for value in observation.images.values()} == {100}
    assert (observation.instruction, observation.instruction_id) == ("lift the tray", 3)
    assert sync.observation(110 * MS, "", after_ns=100 * MS) is None


def test_incomplete_newest_frame_falls_back_to_the_one_before() -> None:
    sync = live([0, 50 * MS], [0, 50 * MS], [0, 45 * MS])
    frame = sync.newest()
    assert frame is not None and frame.stamp_ns == 0
    sync.add_joints(52 * MS, joints(52 * MS))
    frame = sync.newest()
    assert frame is not None and frame.stamp_ns == 50 * MS


def test_silent_stream_is_named_with_age_limit_and_topic() -> None:
    sync = live([0, 1000 * MS], [0], [0, 1000 * MS])
    text = "camera 'left_wrist' silent for 1.00 s (limit 0.20 s); is left_wrist_camera/color/image_raw published?"
    with pytest.raises(StaleObservation, match=re.escape(text)) as caught:
        sync.observation(1000 * MS, "")
    assert "head" not in str(caught.value)


def test_missing_streams_are_all_named() -> None:
    sync = Synchroniser(TOPICS, "arms/joint_states", CONFIG)
    with pytest.raises(StaleObservation) as caught:
        sync.check(0)
    for topic in (*TOPICS.values(), "arms/joint_states"):
        assert f"nothing received yet; is {topic} published?" in str(caught.value)
    assert sync.newest() is None


def test_stamps_of_another_clock_are_refused() -> None:
    sync = live([5000 * MS], [0], [0])
    with pytest.raises(StaleObservation, match=r"camera 'head' stamped 5\.00 s in the future .* use_sim_time"):
        sync.check(0)


def test_old_repeated_and_unknown_samples() -> None:
    sync = live([50 * MS], [50 * MS], [50 * MS])
    assert not sync.add_image("head", 50 * MS, image(0))
    assert not sync.add_joints(49 * MS, joints(0))
    with pytest.raises(StaleObservation, match="unknown camera 'hed'; did you mean 'head'"):
        sync.add_image("hed", 60 * MS, image(0))
    sync.clear()
    assert sync.newest() is None
    assert sync.add_joints(10 * MS, joints(0))


def test_a_clock_that_jumps_back_starts_anew() -> None:
    sync = live([1000 * MS], [1000 * MS], [1000 * MS])
    assert sync.newest() is not None
    assert sync.add_image("head", 50 * MS, image(0)), "not an old image: the clock was set back"
    assert sync.newest() is None
    sync.add_image("left_wrist", 50 * MS, image(0))
    sync.add_joints(50 * MS, joints(0))
    frame = sync.newest()
    assert frame is not None and frame.stamp_ns == 50 * MS


def test_only_images_of_a_frame_are_decoded() -> None:
    decoded = []

    def decode(camera: str, value: int) -> np.ndarray:
        decoded.append((camera, value))
        return image(value)

    sync = Synchroniser({"head": "head"}, JOINTS, CONFIG, decode)
    for stamp in (0, 50 * MS):
        sync.add_image("head", stamp, stamp // MS)
        sync.add_joints(stamp, joints(stamp))
    observation = sync.observation(50 * MS, "")
    assert observation is not None and decoded == [("head", 50)]
    assert observation.images["head"][0, 0, 0] == 50


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="max_age_s must be positive, found 0"):
        SyncConfig(max_age_s=0)


@pytest.mark.parametrize("robot", sorted(path.stem for path in (share_dir() / "config" / "robots").glob("*.yaml")))
def test_default_fits_every_shipped_robot(robot: str) -> None:
    SyncConfig().check({camera.name: camera.rate_hz for camera in load_embodiment(robot).cameras})


def test_tolerance_stays_below_half_a_period_of_the_fastest_camera() -> None:
    text = r"image_tolerance_s must be below 0.0083, half a period of camera 'wrist' \(60 Hz\), found 0.016: a nearer"
    with pytest.raises(ConfigError, match=text):
        SyncConfig().check({"head": 30, "wrist": 60})
    with pytest.raises(ConfigError, match="below 0.0167, .* found 0.02"):
        SyncConfig(image_tolerance_s=0.02).check({"head": 30, "wrist": 30})
    SyncConfig(image_tolerance_s=0.008).check({"head": 30, "wrist": 60})
    SyncConfig().check({"head": 60})


@settings(max_examples=60, deadline=None)
@given(
    period_ms=st.integers(45, 70),
    jitter_ms=st.lists(st.integers(-9, 9), min_size=12, max_size=12),
    lost=st.sets(st.integers(0, 11), max_size=4),
    late_ms=st.integers(0, 40),
    joint_phase_ms=st.integers(0, 4),
)
def test_live_frames_equal_bag_frames(
    period_ms: int, jitter_ms: list[int], lost: set[int], late_ms: int, joint_phase_ms: int
) -> None:
    """Whatever the order of arrival, live delivers frames of the bag, and misses none while it keeps up."""
    head = [i * period_ms * MS for i in range(12)]
    wrist = [i * period_ms * MS + jitter_ms[i] * MS for i in range(12) if i not in lost]
    joint_stamps = [(joint_phase_ms + 5 * i) * MS for i in range(12 * 14)]
    positions = np.array([joints(stamp) for stamp in joint_stamps])
    bag = frames({"head": head, "left_wrist": wrist}, joint_stamps, positions, CONFIG)

    events = [(stamp, "head") for stamp in head] + [(stamp + late_ms * MS, "left_wrist") for stamp in wrist]
    events += [(stamp + 1, JOINTS) for stamp in joint_stamps]
    sync, seen, last = Synchroniser(TOPICS, JOINTS, CONFIG), [], -1
    for arrival, stream in sorted(events):
        if stream == JOINTS:
            sync.add_joints(arrival - 1, joints(arrival - 1))
        else:
            stamp = arrival - (late_ms * MS if stream == "left_wrist" else 0)
            sync.add_image(stream, stamp, image(stamp // MS))
        if (frame := sync.newest(after_ns=last)) is not None:
            seen.append(frame)
            last = frame.stamp_ns
    assert [frame.stamp_ns for frame in seen] == [frame.stamp_ns for frame in bag]
    for mine, theirs in zip(seen, bag, strict=True):
        np.testing.assert_array_equal(mine.positions, theirs.positions)
        assert mine.ages_ns == theirs.ages_ns
