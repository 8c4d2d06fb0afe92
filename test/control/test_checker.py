# SPDX-License-Identifier: Apache-2.0
"""The judge is judged by motions whose derivatives are known."""

import ast
from pathlib import Path

import numpy as np
import pytest

from imagewam_ros.control import checker
from imagewam_ros.core.embodiment import Limits
from imagewam_ros.core.schema import Command, Floats

PERIOD_NS = 5_000_000
LIMITS = Limits(*(np.array([x]) for x in (-1.0, 1.0, 2.0, 10.0, 100.0)))


def log_of(position: Floats, ticks: Floats | None = None, velocity: Floats | None = None) -> checker.Log:
    t = np.arange(len(position)) if ticks is None else ticks
    dt = PERIOD_NS * 1e-9
    v = np.gradient(position, t * dt) if velocity is None else velocity
    return checker.Log(PERIOD_NS, t.astype(np.int64), position[:, None], v[:, None], np.gradient(v, t * dt)[:, None])


def sine(amplitude: float, omega: float, ticks: Floats) -> checker.Log:
    t = ticks * PERIOD_NS * 1e-9
    parts = (amplitude * omega**k * np.sin(omega * t + k * np.pi / 2) for k in range(3))
    return checker.Log(PERIOD_NS, ticks.astype(np.int64), *(part[:, None] for part in parts))


def kinds(log: checker.Log) -> set[str]:
    return {violation.quantity for violation in checker.check_log(log, LIMITS)}


@pytest.mark.parametrize("gaps", [False, True])
def test_motion_at_ninety_nine_percent_of_each_limit_passes(gaps: bool) -> None:
    ticks = np.cumsum(np.random.default_rng(0).integers(1, 8, 400)) if gaps else np.arange(1000)
    for omega in (1.0, 4.0, 8.0, 30.0):
        amplitude = 0.99 * min(1.0, 2.0 / omega, 10.0 / omega**2, 100.0 / omega**3)
        assert not checker.check_log(sine(amplitude, omega, ticks), LIMITS)


@pytest.mark.parametrize(
    ("amplitude", "omega", "quantity"),
    [(1.01, 0.5, "above upper"), (0.8, 2.55, "velocity"), (0.3, 5.9, "acceleration"), (0.0045, 29.0, "jerk")],
)
def test_motion_above_one_limit_is_found(amplitude: float, omega: float, quantity: str) -> None:
    assert quantity in kinds(sine(amplitude, omega, np.arange(1600)))


def test_a_jump_over_a_late_tick_counts_by_the_time_that_passed() -> None:
    ticks = np.array([0, 1, 2, 12, 13, 14])
    still = np.zeros(6)
    still[3:] = 0.0001
    assert not {"velocity", "acceleration"} & kinds(log_of(still, ticks, np.zeros(6)))
    dense = log_of(still, np.arange(6), np.zeros(6))
    assert "jerk" in kinds(dense)


def test_ticks_that_go_back_are_a_violation() -> None:
    zero = np.zeros((4, 1))
    found = checker.check_log(checker.Log(PERIOD_NS, np.array([0, 1, 1, 2]), zero, zero, zero), LIMITS)
    assert [(v.quantity, v.tick) for v in found] == [("tick order", 1)]


def test_not_a_number_is_a_violation() -> None:
    found = checker.check_log(log_of(np.array([0.0, np.nan, 0.0]), None, np.zeros(3)), LIMITS)
    assert found[0].quantity == "position"
    assert found[0].tick == 1


def test_stated_velocity_must_be_that_of_the_positions() -> None:
    good = sine(0.2, 4.0, np.arange(200))
    lying = good._replace(velocity=good.velocity + 0.05)
    assert kinds(lying) == {"position against stated velocity"}


def test_stated_acceleration_must_be_that_of_the_velocities() -> None:
    good = sine(0.2, 4.0, np.arange(200))
    assert "velocity against stated acceleration" in kinds(good._replace(acceleration=good.acceleration + 1.0))


def test_commands_are_gathered_and_repetitions_left_out() -> None:
    zero = np.zeros(1)
    sent = [Command(t, t * PERIOD_NS, PERIOD_NS, ("a",), zero, zero, zero) for t in (0, 1, 1, 2)]
    assert checker.gather(sent).ticks.tolist() == [0, 1, 2]
    assert checker.check(sent, LIMITS) == []
    assert checker.check([], LIMITS) == []


def test_it_imports_nothing_of_control() -> None:
    tree = ast.parse(Path(checker.__file__).read_text(encoding="utf8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in modules if name.startswith("imagewam_ros.") and ".core" not in name]
