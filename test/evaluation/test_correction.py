# SPDX-License-Identifier: Apache-2.0
"""The expert lets a good run alone, takes over a bad one by the stated rule, and its corrections are sound."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk
from imagewam_ros.data.interventions import corrected
from imagewam_ros.evaluation.correction import Corrected, Rule, run_corrected
from imagewam_ros.evaluation.trial import TrialConfig
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.expert import PERIOD_NS, Expert

SEED = 2_000_003


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    made = Cell(load_embodiment("sim_cell"), "block_lift")
    yield made
    made.close()


class Straying:
    """The expert, who leans away by `lean` rad from `after_s` on."""

    def __init__(self, lean: float, after_s: float = 1.2) -> None:
        self._lean, self._after_s = lean, after_s

    def start(self, cell: Cell, seed: int) -> None:
        self._expert = Expert(cell)
        self._expert.start()

    def chunk(self, cell: Cell) -> ActionChunk:
        chunk = self._expert.chunk()
        share = np.clip(cell.time_ns * 1e-9 - self._after_s, 0, 1)
        lean = share * self._lean * ~cell.embodiment.gripper_mask
        return replace(chunk, positions=chunk.positions + lean)


class Still:
    """Wants to stay."""

    def start(self, cell: Cell, seed: int) -> None:
        self._home = cell.joint_state().position

    def chunk(self, cell: Cell) -> ActionChunk:
        names = cell.embodiment.joint_names
        return ActionChunk(cell.time_ns, PERIOD_NS, names, np.tile(self._home, (16, 1)))


@pytest.fixture(scope="module")
def taken(cell: Cell) -> tuple[list[str], Corrected]:
    """What was told, and a run that strays and is taken over."""
    told: list[str] = []
    return told, run_corrected(cell, Straying(0.3), SEED, TrialConfig(), Rule(), told.append)


def test_a_good_run_is_left_alone(cell: Cell) -> None:
    found = run_corrected(cell, Straying(0.0), SEED, TrialConfig(), Rule())
    assert found.success and not found.interventions and not found.reason


def test_a_straying_run_is_taken_over_and_finished(taken: tuple[list[str], Corrected]) -> None:
    told, found = taken
    assert found.success and told == [found.reason] and "cm from the expert's way" in found.reason
    assert len(found.states) == len(found.images) == len(found.actions) > 60
    stamps = np.array([state.stamp_ns for state in found.states])
    assert (np.diff(stamps) == PERIOD_NS).all()
    label = corrected(stamps, found.interventions)
    assert 40 < label.sum() < len(label) - 20, "the policy's part is not a lesson"
    actions, positions = np.stack(found.actions), np.stack([state.position for state in found.states])
    lag = np.abs(actions[:-1] - positions[1:])[label[:-1]].max()
    assert lag < 0.15, "an action is where the joints are a frame later, but for the servos' lag"


def test_the_same_seed_gives_the_same_correction(cell: Cell, taken: tuple[list[str], Corrected]) -> None:
    first, second = taken[1], run_corrected(cell, Straying(0.3), SEED, TrialConfig(), Rule())
    assert first.interventions == second.interventions
    assert all(np.array_equal(a, b) for a, b in zip(first.actions, second.actions, strict=True))


def test_a_run_that_does_nothing_is_late_if_it_is_not_astray(cell: Cell) -> None:
    found = run_corrected(cell, Still(), SEED, TrialConfig(), Rule(deviation_m=5.0, late_s=0.5))
    assert found.success and found.reason == "not done 0.5 s after the expert would have been"
    ((first, _),) = found.interventions
    assert first > 4e9


def test_patience_delays_the_takeover(cell: Cell, taken: tuple[list[str], Corrected]) -> None:
    slow = run_corrected(cell, Straying(0.3), SEED, TrialConfig(), Rule(patience_s=Rule().patience_s + 0.5))
    assert slow.interventions[0][0] > taken[1].interventions[0][0]


def test_the_rule_is_checked() -> None:
    with pytest.raises(ConfigError, match="deviation_m and window_s must be positive"):
        Rule(deviation_m=0)
