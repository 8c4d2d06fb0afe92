# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from imagewam_ros.control.executor import Executor, ExecutorConfig
from imagewam_ros.control.ledger import Ledger, Travel
from imagewam_ros.control.timeline import Rows
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.paths import share_dir
from imagewam_ros.core.schema import ActionChunk, JointState

P = 50_000_000


def rows(stamp: int, joint: list[float], gripper: list[float] | None = None) -> Rows:
    closed = [0.0] * len(joint) if gripper is None else gripper
    return Rows(stamp + np.arange(len(joint)) * P, np.stack([joint, closed], axis=1))


def test_travel_is_the_summed_motion_of_the_joints_without_the_gripper() -> None:
    ledger = Ledger(0.02)
    ledger.chunk(rows(0, [0.0, 0.1, 0.3, 0.2]), 0)
    for position in (0.0, 0.2, 0.1):
        ledger.sent(np.array([position, 0.03 * position]))
    assert ledger.travel.predicted == pytest.approx(0.4)
    assert ledger.travel.executed == pytest.approx(0.3)
    assert ledger.travel.ratio == pytest.approx(0.75)
    assert ledger.travel.lost == pytest.approx(0.1)


def test_overlapping_chunks_predict_each_moment_once() -> None:
    ledger = Ledger(0.02)
    for k in range(4):
        ledger.chunk(rows(2 * k * P, [0.1 * (2 * k + i) for i in range(5)]), 2 * k * P)
    assert ledger.travel.predicted == pytest.approx(0.1 * (4 + 3 * 2))


def test_a_gripper_event_that_is_replaced_before_it_is_due_is_lost() -> None:
    ledger = Ledger(0.02)
    ledger.chunk(rows(0, [0.0] * 6, [0.0, 0.0, 0.0, 0.04, 0.04, 0.04]), 0)
    ledger.chunk(rows(P, [0.0] * 6), P)
    assert (ledger.travel.gripper_predicted, ledger.travel.gripper_lost) == (1, 1)


def test_a_gripper_event_that_is_predicted_again_or_reached_is_not_lost() -> None:
    ledger = Ledger(0.02)
    closing = [0.0, 0.0, 0.0, 0.04, 0.04, 0.04]
    ledger.chunk(rows(0, [0.0] * 6, closing), 0)
    ledger.chunk(rows(P, [0.0] * 6, [0.0, 0.0, 0.04, 0.04, 0.04, 0.04]), P)
    ledger.chunk(rows(4 * P, [0.0] * 6, [0.04] * 6), 4 * P)
    assert (ledger.travel.gripper_predicted, ledger.travel.gripper_lost) == (1, 0)


def test_a_gripper_event_that_a_later_chunk_adds_is_predicted_then_and_lost_once() -> None:
    ledger, closing = Ledger(0.02), [0.0, 0.0, 0.0, 0.04, 0.04, 0.04]
    ledger.chunk(rows(0, [0.0] * 6), 0)
    ledger.chunk(rows(P, [0.0] * 6, closing), P)
    assert (ledger.travel.gripper_predicted, ledger.travel.gripper_lost) == (1, 0)
    ledger.chunk(rows(2 * P, [0.0] * 6), 2 * P)
    assert (ledger.travel.gripper_predicted, ledger.travel.gripper_lost) == (1, 1)


def test_what_a_stop_cuts_off_is_lost_and_a_clock_that_was_set_back_hides_nothing() -> None:
    ledger, closing = Ledger(0.02), [0.0, 0.0, 0.0, 0.04, 0.04, 0.04]
    ledger.chunk(rows(100 * P, [0.0] * 6, closing), 100 * P)
    ledger.stopped(101 * P)
    assert (ledger.travel.gripper_predicted, ledger.travel.gripper_lost) == (1, 1)
    ledger.stopped(102 * P)
    ledger.chunk(rows(0, [0.0, 0.1, 0.2, 0.3]), 0)
    assert ledger.travel.predicted == pytest.approx(0.3)
    assert ledger.travel.gripper_lost == 1


@pytest.mark.parametrize("name", sorted(path.stem for path in (share_dir() / "config" / "robots").glob("*.yaml")))
def test_every_robots_gripper_is_counted_at_the_middle_of_its_range(name: str) -> None:
    robot = load_embodiment(name)
    limits = robot.limits
    middle = (limits.lower + limits.upper) / 2
    for low, high, events in ((0.05, 0.45, 0), (0.55, 0.95, 0), (0.4, 0.6, 1)):
        executor = Executor(robot, ExecutorConfig(absurd_jump_s=100.0))
        executor.activate(0, JointState(0, robot.joint_names, middle, 0 * middle))
        share = np.linspace(low, high, 40)[:, None]
        targets = np.where(robot.gripper_mask, limits.lower + share * (limits.upper - limits.lower), middle)
        assert executor.accept(ActionChunk(0, 2 * P, robot.joint_names, targets), 0).accepted
        assert [travel.gripper_predicted for travel in executor.status.travel.values()] == [events, events]


def test_nothing_predicted_is_nothing_lost() -> None:
    assert Travel().ratio == 1.0
    assert Travel(executed=1.0).lost == 0.0
