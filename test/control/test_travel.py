# SPDX-License-Identifier: Apache-2.0
"""Chunks that move late: the field report's loop loses what the executor keeps."""

import numpy as np
import pytest

from imagewam_ros.control import travel
from imagewam_ros.core.embodiment import Embodiment


def test_the_policy_is_that_of_the_report() -> None:
    share = travel.profile()
    assert share[0] == 0.0
    assert share[7] == pytest.approx(0.44)
    assert share[-1] == 1.0
    assert (np.diff(share) > 0).all()


def test_replanning_from_row_zero_gives_about_half() -> None:
    case = travel.replan_from_row_zero()
    assert case.ratio == pytest.approx(3.2 / 5.6, abs=0.05)


def test_the_executor_travels_what_was_predicted(robot: Embodiment) -> None:
    case = travel.through_executor(robot)
    assert 0.95 <= case.ratio <= 1.02
    assert (np.diff(case.travelled) > -1e-4).all()


def test_chunks_that_move_far_later_want_to_be_asked_for_less_often(robot: Embodiment) -> None:
    often, seldom = (travel.through_executor(robot, first_half=0.25, every=every).ratio for every in (8, 15))
    assert often < 0.7, "what a policy says from halfway is that the arm was too fast"
    assert 0.95 <= seldom <= 1.05
