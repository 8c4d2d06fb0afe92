# SPDX-License-Identifier: Apache-2.0
"""Joint states from any number of drivers, against a dictionary of the newest samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import EmbodimentMismatch, StaleObservation
from imagewam_ros.core.joints import MAX_BACKWARD_NS, JointMerge

ROBOT = load_embodiment("sim_cell")
NAMES = ROBOT.joint_names
SEEDS = st.integers(0, 10_000)


@given(SEEDS, st.integers(1, 14))
def test_any_split_over_drivers_gives_the_same_state(seed, drivers):
    rng = np.random.default_rng(seed)
    position, velocity = rng.uniform(-1, 1, (2, 14))
    merge, stamps = JointMerge.of(ROBOT), 1000 + rng.integers(0, 50, drivers)
    for stamp, mine in zip(stamps, np.array_split(rng.permutation(14), drivers), strict=True):
        assert not merge.complete
        merge.add(int(stamp), [NAMES[i] for i in mine], position[mine], velocity[mine])
    assert merge.complete and merge.state.stamp_ns == stamps.min()
    np.testing.assert_array_equal(merge.state.position, position)
    np.testing.assert_array_equal(merge.state.velocity, velocity)


@given(st.lists(st.tuples(st.sampled_from(["left", "right"]), st.integers(1, 1000)), max_size=12))
def test_an_arm_is_new_only_when_its_stamp_grew(messages):
    merge, newest = JointMerge.of(ROBOT), {"left": -1, "right": -1}
    for side, stamp in messages:
        names = NAMES[ROBOT.arm_slice(side)]
        moved = merge.add(stamp, names, np.zeros(7), np.zeros(0))
        assert moved == ((side,) if stamp > newest[side] else ())
        newest[side] = max(newest[side], stamp)
    assert merge.complete == (min(newest.values()) > 0)
    if merge.complete:
        assert merge.state.stamp_ns == min(newest.values())


@pytest.mark.parametrize("silent", ["left", "right"])
def test_the_joints_of_a_silent_arm_are_named_and_no_others(silent):
    (talking,) = {"left", "right"} - {silent}
    merge = JointMerge.of(ROBOT)
    merge.add(5, NAMES[ROBOT.arm_slice(talking)], np.zeros(7), np.zeros(0))
    with pytest.raises(EmbodimentMismatch) as caught:
        merge.fresh(5, 0.1, "/joint_states")
    lacking, found = str(caught.value).split("; found ")
    assert lacking == "joint_states lacks " + ", ".join(NAMES[ROBOT.arm_slice(silent)])
    assert found.startswith(", ".join(NAMES[ROBOT.arm_slice(talking)]))


@given(st.integers(0, 2 * 10**9))
def test_an_arm_that_falls_silent_ages_the_whole(after_ns):
    merge = JointMerge.of(ROBOT)
    merge.add(1, NAMES, np.zeros(14), np.zeros(0))
    merge.add(1 + after_ns, NAMES[:7], np.zeros(7), np.zeros(0))
    if after_ns <= 5 * 10**8:
        assert merge.fresh(1 + after_ns, 0.5, "/joints").stamp_ns == 1
    else:
        with pytest.raises(StaleObservation, match="is /joints alive"):
            merge.fresh(1 + after_ns, 0.5, "/joints")


@given(st.integers(1, 2 * MAX_BACKWARD_NS))
def test_overtaking_is_forgiven_and_another_clock_is_not(back_ns):
    merge = JointMerge.of(ROBOT)
    merge.add(10**12, NAMES, np.zeros(14), np.zeros(0))
    moved = merge.add(10**12 - back_ns, NAMES[:7], np.ones(7), np.zeros(0))
    assert merge.complete == (back_ns <= MAX_BACKWARD_NS)
    assert moved == (() if merge.complete else ("left",))


def test_a_position_that_is_no_number_changes_nothing():
    merge = JointMerge.of(ROBOT)
    merge.add(5, NAMES, np.ones(14), np.zeros(0))
    with pytest.raises(StaleObservation, match=NAMES[3]):
        merge.add(9, NAMES, np.where(np.arange(14) == 3, np.nan, 2.0), np.zeros(0))
    assert merge.state.stamp_ns == 5 and (merge.state.position == 1.0).all()
