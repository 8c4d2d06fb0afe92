# SPDX-License-Identifier: Apache-2.0
"""Cartesian speed, workspace box and clearance, measured on the commands by other means."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imagewam_ros.control import checker
from imagewam_ros.control.executor import State
from imagewam_ros.control.guard import Guard, GuardConfig
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Floats
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.clearance import Clearance
from imagewam_ros.kinematics.description import expand

WAIST = np.where(np.arange(14) == 0, 1.0, 0.0)


@pytest.fixture(scope="module")
def urdf() -> str:
    return expand()


@pytest.fixture(scope="module")
def chains(urdf: str, robot: Embodiment) -> Chains:
    return Chains(urdf, robot)


def tools(chains: Chains, player: Any) -> Floats:
    """(commands, 2, 3) tool positions, m."""
    return np.array([[pose[:3, 3] for pose in chains.forward(c.position).values()] for c in player.commands])


def played(player: Any, target: Floats, seconds: float) -> Any:
    """Chunks towards `target`, one every 0.4 s."""
    for _ in range(round(seconds / 0.4)):
        player.executor.accept(player.towards(target), player.now_ns)
        step = player.run(0.4)
    assert checker.check(player.commands, player.robot.limits) == []
    return step


@pytest.mark.parametrize("cap", [0.1, 0.25])
def test_no_tool_is_faster_than_the_cap(make_player: Any, robot: Any, urdf: str, chains: Chains, cap: float) -> None:
    guard = Guard(robot, urdf, GuardConfig(speed_cap=cap, stop_distance=0.0, slow_distance=0.0))
    guarded, free = make_player(guard=guard), make_player()
    target = guarded.executor.reference().position + 0.8 * WAIST
    for player in (guarded, free):
        played(player, target, 1.6)
    dt = robot.period_ns * 1e-9
    speed = np.linalg.norm(np.diff(tools(chains, guarded), axis=0), axis=2) / dt
    assert np.linalg.norm(np.diff(tools(chains, free), axis=0), axis=2).max() / dt > 1.5 * cap
    assert speed.max() <= cap * 1.001
    assert speed.max() > 0.5 * cap, "the cap must not stop the arm"


def test_the_tool_stays_in_its_box(make_player: Any, robot: Any, urdf: str, chains: Chains, middle: Floats) -> None:
    here = np.array([pose[:3, 3] for pose in chains.forward(middle).values()])
    low, high = here.min(axis=0) - 0.1, here.max(axis=0) + 0.1
    guard = Guard(robot, urdf, GuardConfig(speed_cap=0.0, stop_distance=0.0, slow_distance=0.0, box=(*low, *high)))
    player = make_player(guard=guard)
    played(player, middle + 1.2 * WAIST, 2.4)
    assert (tools(chains, player) >= low - 1e-3).all()
    assert (tools(chains, player) <= high + 1e-3).all()
    assert np.abs(player.commands[-1].position[0]) > 0.05


def test_links_keep_their_distance_and_the_reason_names_them(
    make_player: Any, robot: Any, urdf: str, chains: Chains, middle: Floats
) -> None:
    """Both elbows fold; somewhere on the way the robot would touch itself."""
    clearance, stop = Clearance(urdf, chains), 0.03
    rng = np.random.default_rng(0)
    near = (rng.uniform(robot.limits.lower, robot.limits.upper) for _ in range(2000))
    target = next(q for q in near if clearance.nearest(q).distance_m < -0.02)
    start = middle if clearance.nearest(middle).distance_m > 0.06 else robot.limits.lower * 0
    guard = Guard(robot, urdf, GuardConfig(speed_cap=0.0, stop_distance=stop, slow_distance=0.08))
    player = make_player(guard=guard, start=start, absurd_jump_s=100.0, absurd_speed=100.0)
    played(player, target, 4.0)
    smallest = min(clearance.nearest(c.position).distance_m for c in player.commands[::4])
    assert smallest >= stop - 1e-3
    assert smallest < 0.2, "the arms must have approached"


def test_a_veto_brakes_holds_and_says_why(
    make_player: Any, robot: Any, urdf: str, chains: Chains, middle: Floats
) -> None:
    """Rows that change after they were shaped: the box shrinks around a moving tool."""
    guard = Guard(robot, urdf, GuardConfig(speed_cap=0.0, stop_distance=0.0, slow_distance=0.0))
    player = make_player(guard=guard)
    player.executor.accept(player.towards(middle + 0.5 * WAIST), player.now_ns)
    player.run(0.3)
    tool = tools(chains, player)[-1]
    guard.config = replace(guard.config, box=(*(tool.min(axis=0) - 0.005), *(tool.max(axis=0) + 0.005)))
    step = player.run(0.6)
    assert step.state is State.HOLDING
    assert "a tool would stop" in step.reason
    assert "mm outside the workspace box" in step.reason
    assert player.executor.status.guarded_ticks > 0
    assert player.executor.at_rest
    assert checker.check(player.commands, robot.limits) == []


def test_an_arm_that_is_outside_may_come_back(
    make_player: Any, robot: Any, urdf: str, chains: Chains, middle: Floats
) -> None:
    here = np.array([pose[:3, 3] for pose in chains.forward(middle).values()])
    away = middle + 0.5 * WAIST
    box = (*(here.min(axis=0) - 0.05), *(here.max(axis=0) + 0.05))
    guard = Guard(robot, urdf, GuardConfig(speed_cap=0.0, stop_distance=0.0, slow_distance=0.0, box=box))
    player = make_player(guard=guard, start=away)
    played(player, middle, 2.0)
    assert np.abs(player.commands[-1].position - middle).max() < 0.02


def test_rows_are_stretched_alike_for_both_arms(robot: Any, urdf: str, middle: Floats) -> None:
    from imagewam_ros.control.timeline import Rows

    guard = Guard(robot, urdf, GuardConfig(speed_cap=0.1, stop_distance=0.0, slow_distance=0.0))
    times = (1 + np.arange(8)) * 50_000_000
    moving = middle[:7] + np.linspace(0.1, 0.8, 8)[:, None] * WAIST[:7]
    still = np.tile(middle[7:], (8, 1))
    shaped = guard.shape(middle, 0, {"left": Rows(times, moving), "right": Rows(times, still)})
    assert np.array_equal(shaped["left"].times_ns, shaped["right"].times_ns)
    assert shaped["left"].times_ns[-1] > 2 * times[-1]
    assert np.array_equal(shaped["left"].positions, moving)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"speed_cap": -1.0}, "speed_cap -1.0 and stop_distance 0.02 must not be negative"),
        ({"slow_distance": 0.01}, "slow_distance 0.01 not below stop_distance"),
        ({"box": (1.0, 0.0)}, "box must be x, y, z lowest then highest"),
        ({"box": (0.0, 0.0, 0.0, 1.0, -1.0, 1.0)}, "box must be x, y, z lowest then highest"),
    ],
)
def test_impossible_bounds_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        GuardConfig(**change)
