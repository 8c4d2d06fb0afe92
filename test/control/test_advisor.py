# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from imagewam_ros.control import advisor, tracking
from imagewam_ros.control.advisor import Arrival, Recording, Trial
from imagewam_ros.control.executor import ExecutorConfig
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Floats

LATENCY_S = 0.12


@pytest.fixture(scope="module")
def slices(robot: Embodiment) -> Recording:
    """Exact slices of one motion, 3 s."""
    trajectory = tracking.smooth(robot, np.random.default_rng(0), 0.4)
    arriving = tracking.deliveries(robot, trajectory, LATENCY_S, 3.0)
    start = trajectory.at(np.zeros(1))[0]
    return Recording(0, start, tuple(Arrival(*a) for a in arriving), 3 * 10**9)


def test_the_same_recording_gives_the_same_commands(robot: Embodiment, slices: Recording) -> None:
    first, second = (advisor.play(robot, slices) for _ in range(2))
    positions = [[c.position for c in played.commands] for played in (first, second)]
    assert advisor.first_divergence(*positions, robot.joint_names, 0.0) is None
    assert len(first.commands) == 600
    assert first.status.accepted == len(slices.arrivals)


def test_the_first_divergence_names_place_joint_and_values(robot: Embodiment, slices: Recording) -> None:
    recorded = [c.position for c in advisor.play(robot, slices).commands]
    other = advisor.play(robot, slices, ExecutorConfig(smoothing_hz=3.0))
    found = advisor.first_divergence(recorded, [c.position for c in other.commands], robot.joint_names, 1e-9)
    assert found is not None
    assert found.place == round(LATENCY_S * robot.control_rate_hz) - 1
    assert found.joint in robot.joint_names
    assert str(found).startswith(f"first divergence at {found.place}, joint '{found.joint}': {found.recorded} became")


def test_chunks_are_compared_row_by_row() -> None:
    chunk = np.zeros((4, 2))
    changed = chunk.copy()
    changed[2, 1] = 0.5
    found = advisor.first_divergence([chunk, chunk], [chunk, changed], ("a", "b"), 1e-3)
    assert found == (1, "b", 0.0, 0.5)
    nan = np.full((4, 2), np.nan)
    assert advisor.first_divergence([chunk], [nan], ("a", "b"), 1.0) is not None


def test_a_shorter_playback_is_an_error() -> None:
    with pytest.raises(ConfigError, match="2 were recorded but 1 played; all that both have agree"):
        advisor.first_divergence([np.zeros(1)] * 2, [np.zeros(1)], ("a",), 0.0)


def test_every_setting_plays_slices_of_one_motion_alike(robot: Embodiment, slices: Recording) -> None:
    trials = advisor.sweep(robot, slices, horizons=(0, 8), skips_s=(0.0,))
    assert len(trials) == 6
    assert max(trial.stale for trial in trials) < 0.1
    assert max(trial.travel for trial in trials) - min(trial.travel for trial in trials) < 0.05
    assert "ensemble   horizon  0  skip   0 ms" in str(trials[0])


def test_noisy_chunks_are_smoother_when_they_are_averaged(robot: Embodiment, slices: Recording) -> None:
    rng = np.random.default_rng(1)

    def shifted(positions: Floats) -> Floats:
        return positions + np.where(robot.gripper_mask, 0.0, rng.normal(0, 0.01, 14))

    noisy = tuple(Arrival(t, replace(c, positions=shifted(c.positions))) for t, c in slices.arrivals)
    trials = advisor.sweep(robot, replace(slices, arrivals=noisy), horizons=(0,), skips_s=(0.0,))
    rough = {trial.config.rule: trial.roughness for trial in trials}
    assert rough["ensemble"] < rough["latest"]
    assert rough["crossfade"] < rough["latest"]


def trial(rule: str = "latest", **values: float) -> Trial:
    given = {"travel": 1.0, "stale": 0.01, "roughness": 0.1, "held": 0.0, "gripper_lost": 0} | values
    return Trial(ExecutorConfig(rule=rule), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (trial(stale=0.5), trial(held=0.2)),
        (trial(stale=0.5), trial(gripper_lost=2)),
        (trial(stale=0.5), trial(travel=0.6)),
        (trial(stale=0.01, roughness=0.9), trial(stale=0.05)),
        (trial(stale=0.0105, roughness=0.1), trial(stale=0.01, roughness=0.5)),
    ],
)
def test_advice_ranks_what_matters_first(better: Trial, worse: Trial) -> None:
    advice = advisor.recommend([worse, better])
    assert advice.trial is better
    assert "of 2 settings" in advice.reason


def test_an_empty_recording_is_refused() -> None:
    with pytest.raises(ConfigError, match="the recording holds no chunks; was policy/action_chunk recorded"):
        Recording(0, np.zeros(14), (), 1)


def test_unsorted_chunks_are_refused(slices: Recording) -> None:
    with pytest.raises(ConfigError, match="not in order of their arrival; sort them by receive time"):
        replace(slices, arrivals=slices.arrivals[::-1])
