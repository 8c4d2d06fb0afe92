# SPDX-License-Identifier: Apache-2.0
"""The pairing rule against one written as plain loops, for any stamps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.core.sync import JOINTS, SyncConfig, frames, interpolate, nearest

STAMPS = st.lists(st.integers(0, 400), min_size=0, max_size=12, unique=True).map(sorted)
CONFIG = SyncConfig(image_tolerance_s=15e-9, joint_gap_s=60e-9, max_age_s=1.0)


def as_array(stamps):
    return np.asarray(stamps, dtype=np.int64)


@given(STAMPS, STAMPS, st.integers(0, 50))
def test_nearest_equals_a_search_of_all(stamps, targets, tolerance):
    found = nearest(as_array(stamps), as_array(targets), tolerance)
    for target, index in zip(targets, found.tolist(), strict=True):
        distances = [abs(stamp - target) for stamp in stamps]
        if not stamps or min(distances) > tolerance:
            assert index == -1
        else:
            assert index == distances.index(min(distances)), "the earlier of two equals"


def by_loops(head, wrist, joints, config):
    """Frames as (shutter, index of the wrist image, position of the one joint, which is its stamp)."""
    found = []
    for shutter in head:
        partners = [(abs(stamp - shutter), i) for i, stamp in enumerate(wrist)]
        before = [stamp for stamp in joints if stamp <= shutter]
        after = [stamp for stamp in joints if stamp >= shutter]
        if not partners or min(partners)[0] > config.image_tolerance_ns or not before or not after:
            continue
        if after[0] - before[-1] > config.joint_gap_ns:
            continue
        found.append((shutter, min(partners)[1], float(shutter)))
    return found


@settings(max_examples=100)
@given(STAMPS, STAMPS, STAMPS)
def test_frames_equal_plain_loops(head, wrist, joints):
    positions = np.array(joints, dtype=float).reshape(-1, 1)
    found = frames({"head": head, "wrist": wrist}, joints, positions, CONFIG)
    got = [(f.stamp_ns, f.image_index["wrist"], pytest.approx(f.positions[0], abs=1e-6)) for f in found]
    assert got == by_loops(head, wrist, joints, CONFIG)
    for frame in found:
        assert head[frame.image_index["head"]] == frame.stamp_ns
        assert frame.ages_ns["head"] == 0 and frame.ages_ns[JOINTS] >= 0
        assert abs(frame.ages_ns["wrist"]) <= CONFIG.image_tolerance_ns


@given(STAMPS, st.integers(0, 400))
def test_interpolation_of_a_line_is_the_line(stamps, at):
    positions = np.stack([np.array(stamps) * 2.0, 5.0 - np.array(stamps)], axis=1) if stamps else np.zeros((0, 2))
    if not stamps or not stamps[0] <= at <= stamps[-1]:
        return
    assert np.allclose(interpolate(stamps, positions, at, 1000), [2.0 * at, 5.0 - at])


@given(STAMPS, STAMPS, STAMPS, st.integers(1, 10**15))
def test_only_differences_of_time_matter(head, wrist, joints, shift):
    positions = np.arange(len(joints), dtype=float).reshape(-1, 1)

    def moved(by):
        streams = [[stamp + by for stamp in stream] for stream in (head, wrist, joints)]
        found = frames({"head": streams[0], "wrist": streams[1]}, streams[2], positions, CONFIG)
        return [(f.stamp_ns - by, dict(f.image_index), f.positions.tolist(), dict(f.ages_ns)) for f in found]

    assert moved(0) == moved(shift)


@given(STAMPS, STAMPS, STAMPS)
def test_a_later_image_never_changes_earlier_frames(head, wrist, joints):
    """What makes live frames equal recorded ones: more data only adds frames."""
    positions = np.array(joints, dtype=float).reshape(-1, 1)
    whole = frames({"head": head, "wrist": wrist}, joints, positions, CONFIG)
    for cut in range(len(head) + 1):
        part = frames({"head": head[:cut], "wrist": wrist}, joints, positions, CONFIG)
        assert [f.stamp_ns for f in part] == [f.stamp_ns for f in whole if f.stamp_ns in head[:cut]]


def test_frames_are_read_only_copies():
    positions = np.array([[1.0], [2.0]])
    (frame,) = frames({"head": [5]}, [5, 10], positions, CONFIG)
    positions[0] = 9
    assert frame.positions[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        frame.positions[0] = 0.0


@pytest.mark.parametrize("name", ["image_tolerance_s", "joint_gap_s", "max_age_s"])
def test_every_duration_must_be_positive(name):
    from imagewam_ros.core.errors import ConfigError

    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=f"{name} must be positive, found"):
            SyncConfig(**{name: value})
