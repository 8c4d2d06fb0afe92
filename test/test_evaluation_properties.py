# SPDX-License-Identifier: Apache-2.0
"""Evaluation: numbers against their definitions, drivers on the real cell, and when a trial looks."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.evaluation.drivers import OneArmDriver, ReplayDriver, make_driver, wrong_instruction
from imagewam_ros.evaluation.interval import Z95, paired_p_value, wilson
from imagewam_ros.evaluation.trial import TrialConfig, run_trial
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.expert import HORIZON, PERIOD_NS, Expert


@pytest.fixture(scope="module")
def cell():
    made = Cell(load_embodiment("sim_cell"))
    yield made
    made.close()


class Enough(Exception):
    """Ends a trial early."""


class Looking:
    """Holds still, notes when it is asked, and ends the trial after so many chunks."""

    def __init__(self, most):
        self.most, self.asked_ns = most, []

    def start(self, cell, seed):
        self.held = ReplayDriver(cell.joint_state().position[None])

    def chunk(self, cell):
        self.asked_ns.append(cell.time_ns)
        if len(self.asked_ns) == self.most:
            raise Enough
        return self.held.chunk(cell)


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_bounds_are_the_rates_whose_score_is_z(trials, share):
    successes = round(share * trials)
    rate = successes / trials
    low, high = wilson(successes, trials)
    assert 0 <= low <= rate + 1e-12 and rate - 1e-12 <= high <= 1
    for bound in (low, high):
        score = abs(rate - bound) - Z95 * math.sqrt(bound * (1 - bound) / trials)
        assert abs(score) < 1e-6
    mirrored = wilson(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0), (2, 5), (4, 4), (7, 1), (0, 9)])
def test_paired_p_value_counts_outcomes_at_least_as_uneven(first, second):
    coins = product((0, 1), repeat=first + second)
    uneven = [abs(2 * sum(coin) - len(coin)) >= abs(first - second) for coin in coins]
    assert paired_p_value(first, second) == pytest.approx(sum(uneven) / len(uneven))


@pytest.mark.parametrize(("latency_s", "every"), [(0.0, 1), (0.06, 8), (0.12, 1), (0.3, 4)])
def test_a_trial_looks_on_frames_and_only_when_the_last_chunk_has_come(cell, latency_s, every):
    config, driver, frames = TrialConfig(latency_s, every), Looking(4), []
    with pytest.raises(Enough):
        run_trial(cell, driver, "normal", 1000, config, lambda now: frames.append(now.time_ns))
    apart = max(every, math.ceil(latency_s * 1e9 / config.frame_ns))
    assert driver.asked_ns == [i * apart * config.frame_ns for i in range(4)]
    assert frames == [i * config.frame_ns for i in range(3 * apart + 1)]


@pytest.mark.parametrize("config", [{"latency_s": -0.01}, {"latency_s": 0.51}, {"every_frames": 0}])
def test_trials_outside_the_bounds_are_refused(config):
    with pytest.raises(ConfigError, match="every_frames at least 1"):
        TrialConfig(**config)


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_arm_follows_the_expert_and_the_other_stays(cell, side):
    cell.reset(1000)
    home, expert, driver = cell.joint_state().position, Expert(cell), make_driver(f"{side}_only", None)
    assert isinstance(driver, OneArmDriver)
    expert.start()
    driver.start(cell, 1000)
    planned, found = expert.chunk(), driver.chunk(cell)
    moving = np.zeros(14, bool)
    moving[cell.embodiment.arm_slice(side)] = True
    np.testing.assert_array_equal(found.positions[:, moving], planned.positions[:, moving])
    np.testing.assert_array_equal(found.positions[:, ~moving], np.tile(home[~moving], (found.rows, 1)))


def test_a_replay_gives_each_row_at_its_time(cell):
    cell.reset(1000)
    home = cell.joint_state().position
    targets = np.arange(40.0)[:, None] * np.ones(14)
    driver = make_driver("blind", None, targets)
    for number in range(1, 4):
        chunk, first = driver.chunk(cell), cell.time_ns // PERIOD_NS
        assert (chunk.sequence, chunk.stamp_ns, chunk.rows) == (number, cell.time_ns, HORIZON)
        assert chunk.positions[:, 0].tolist() == [min(first + i, 39) for i in range(HORIZON)]
        cell.step(home, 3 * PERIOD_NS)


def test_a_wrong_instruction_is_never_the_scenes(cell):
    for seed in range(6):
        cell.reset(seed)
        assert wrong_instruction(cell, seed) != cell.instruction
        assert wrong_instruction(cell, seed) == wrong_instruction(cell, seed)
