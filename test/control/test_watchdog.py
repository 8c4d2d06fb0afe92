# SPDX-License-Identifier: Apache-2.0
"""Each silence has its answer; time to standstill is bounded."""

from typing import Any

import numpy as np
import pytest

from imagewam_ros.control import checker
from imagewam_ros.control.executor import State
from imagewam_ros.control.watchdog import WatchdogConfig
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import JointState

MOVE = np.where(np.arange(14) % 7 == 6, 0.0, 0.3)


@pytest.fixture
def moving(player: Any, middle: Any) -> Any:
    assert player.executor.accept(player.towards(middle + MOVE), player.now_ns).accepted
    player.run(0.1)
    return player


def standstill(player: Any, after: int) -> float:
    """Seconds from command `after` until the arms rest."""
    moving = [c.tick for c in player.commands[after:] if np.abs(c.velocity).max() > 1e-6]
    return (moving[-1] - player.commands[after].tick) * player.robot.period_ns * 1e-9 if moving else 0.0


@pytest.mark.parametrize("silent", ["left", "right"])
def test_one_arms_silent_joint_states_stop_both_arms(moving: Any, silent: str) -> None:
    for tick in range(120):
        moving.now_ns += moving.robot.period_ns
        heard = {"left", "right"} if tick < 10 else {"left", "right"} - {silent}
        state = moving.measured(moving.commands[-1].position)
        step = moving.executor.step(moving.now_ns, state, heard=heard)
        moving.commands.append(step.command)
    assert step.state is State.FAULTED
    assert step.reason.startswith(f"{silent} arm's joint states silent for 0.2")
    assert "(limit 0.2 s)" in step.reason
    assert moving.executor.at_rest
    assert checker.check(moving.commands, moving.robot.limits) == []


def test_a_frozen_arm_is_noticed_by_its_tracking_error(moving: Any, middle: Any) -> None:
    target = middle + 4 * MOVE
    frozen = moving.commands[-1].position[:7]
    for _ in range(600):
        if moving.executor.state is not State.RUNNING or moving.commands[-1].tick % 40 == 0:
            moving.executor.accept(moving.towards(target), moving.now_ns)
        measured = np.concatenate([frozen, moving.commands[-1].position[7:]])
        step = moving.tick(joint_state=moving.measured(measured))
        if step.state is State.FAULTED:
            break
    assert step.state is State.FAULTED
    assert "is 0.35" in step.reason
    assert step.reason.startswith("joint 'left_")
    assert step.reason.endswith("from its command (limit 0.35); is its controller active?")
    at = len(moving.commands) - 1
    moving.run(1.0)
    assert standstill(moving, at) < 0.5


def test_a_silent_controller_holds_once_it_was_heard(moving: Any) -> None:
    moving.executor.note_controller("right", moving.now_ns)
    step = moving.run(0.6)
    assert step.state is State.HOLDING
    assert step.reason.startswith("right arm's controller silent for 0.5")


@pytest.mark.parametrize("error", [0.4, -0.4, np.nan])
def test_a_controller_that_strays_is_a_fault(moving: Any, error: float) -> None:
    moving.executor.note_controller("left", moving.now_ns, {"left_joint1": 0.1, "left_joint2": error})
    step = moving.tick()
    assert step.state is State.FAULTED
    assert f"joint 'left_joint2' is {abs(error):.3f} from what its controller aims at (limit 0.35)" in step.reason


def test_a_controller_that_tells_small_errors_is_heard(moving: Any) -> None:
    for _ in range(20):
        moving.executor.note_controller("left", moving.now_ns, {"left_joint1": 0.1})
        step = moving.run(0.1)
    assert "silent" not in step.reason


def test_nothing_barks_before_it_was_heard(player: Any) -> None:
    assert player.run(2.0).state is State.HOLDING


def test_the_steady_clock_decides(moving: Any) -> None:
    for tick in range(100):
        moving.now_ns += moving.robot.period_ns
        step = moving.executor.step(moving.now_ns, moving.measured(moving.commands[-1].position) if not tick else None,
                                    steady_ns=tick)  # fmt: skip
    assert step.state is not State.FAULTED


def test_zero_turns_a_watchdog_off(make_player: Any) -> None:
    player = make_player(joint_state_timeout_s=0.0, tracking_error=0.0)
    player.tick(joint_state=player.measured(player.executor.reference().position + 1.0))
    assert player.run(1.0).state is State.HOLDING


def test_grippers_that_hold_something_are_not_tracking_errors(make_player: Any, middle: Any) -> None:
    player = make_player(tracking_error=0.01)
    player.run(0.2)
    held = middle + np.where(player.robot.gripper_mask, 0.02, 0.0)
    assert player.tick(joint_state=player.measured(held)).state is State.HOLDING


def test_joint_states_that_lose_a_joint_are_a_fault(moving: Any) -> None:
    here = moving.measured(moving.commands[-1].position)
    short = JointState(here.stamp_ns, here.joint_names[:-1], here.position[:-1], here.velocity[:-1])
    step = moving.tick(joint_state=short)
    assert (step.state, step.reason) == (State.FAULTED, "joint states lack right_gripper; is every driver running?")


def test_not_a_number_is_a_fault(moving: Any) -> None:
    step = moving.tick(joint_state=moving.measured(np.full(14, np.nan)))
    assert step.state is State.FAULTED


@pytest.mark.parametrize("periods", [1000, -1000])
def test_a_jump_of_time_is_not_a_tracking_error(moving: Any, middle: Any, periods: int) -> None:
    moving.tick(periods, moving.measured(moving.commands[-1].position))
    for _ in range(6):
        moving.executor.accept(moving.towards(middle - MOVE), moving.now_ns)
        for _ in range(60):
            step = moving.tick(joint_state=moving.measured(moving.commands[-1].position))
    assert step.state is not State.FAULTED, step.reason
    assert abs(moving.commands[-1].position[0] - 0.3) > 0.4


def test_negative_limits_are_refused() -> None:
    with pytest.raises(ConfigError, match="controller_timeout_s must not be negative, found -0.1"):
        WatchdogConfig(controller_timeout_s=-0.1)
