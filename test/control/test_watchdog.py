# SPDX-License-Identifier: Apache-2.0
"""Each silence has its answer; time to standstill is bounded."""

from typing import Any

import numpy as np
import pytest

from imagewam_ros.control import checker
from imagewam_ros.control.executor import State, Step
from imagewam_ros.control.watchdog import WatchdogConfig
from imagewam_ros.core.errors import ConfigError, ImageWamError
from imagewam_ros.core.schema import JointState

MOVE = np.where(np.arange(14) % 7 == 6, 0.0, 0.3)


@pytest.fixture
def moving(player: Any, middle: Any) -> Any:
    assert player.executor.accept(player.towards(middle + MOVE), player.now_ns).accepted
    player.run(0.1)
    return player


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


def block(player: Any, middle: Any) -> Any:
    """Something stops the left arm, until that is a fault; returns where the arm is."""
    frozen = player.commands[-1].position[:7]
    for _ in range(600):
        if player.executor.state is not State.RUNNING or player.commands[-1].tick % 40 == 0:
            player.executor.accept(player.towards(middle + 4 * MOVE), player.now_ns)
        follow(player, 1, frozen)
        if player.executor.state is State.FAULTED:
            return frozen
    raise AssertionError("not noticed")


def follow(player: Any, ticks: int, left: Any = None, away: Any = 0.0) -> list[Step]:
    """Tick with the arms measured where they were sent, but the left one at `left`, and all `away` from there."""
    steps = []
    for _ in range(ticks):
        sent = (player.commands or [player.executor.reference()])[-1].position
        measured = np.concatenate([sent[:7] if left is None else left, sent[7:]]) + away
        steps.append(player.tick(joint_state=player.measured(measured)))
    return steps


def test_a_blocked_arm_is_noticed_and_given_way_to(moving: Any, middle: Any) -> None:
    frozen = block(moving, middle)
    reason = moving.executor.status.reason
    assert reason.startswith("joint 'left_") and "is 0.35" in reason
    assert reason.endswith("from its command (limit 0.35); is its controller active?")
    at = len(moving.commands) - 1
    with pytest.raises(ImageWamError, match="the arms are still braking; reset the fault once they rest"):
        moving.executor.reset_fault()
    follow(moving, 100, frozen)
    assert next(i for i, c in enumerate(moving.commands[at:]) if not c.velocity.any()) < 0.5 * 200
    steps = follow(moving, 1000, frozen)
    arm = ~moving.robot.gripper_mask
    assert np.abs((moving.commands[-1].position[:7] - frozen)[arm[:7]]).max() < 1e-3, "it presses no longer"
    assert steps[-1].silent and steps[-1].state is State.FAULTED
    fastest = max(np.abs(c.velocity / moving.robot.limits.velocity).max() for c in moving.commands[at + 100 :])
    assert fastest < 0.25
    assert checker.check(moving.commands, moving.robot.limits) == []
    moving.executor.reset_fault()
    moving.executor.resume()
    assert not follow(moving, 1, frozen)[-1].silent


@pytest.mark.parametrize("measured", [2.0, np.nan])
def test_a_measurement_that_nothing_explains_is_not_followed(moving: Any, measured: float) -> None:
    sent = moving.commands[-1].position
    assert moving.tick(joint_state=moving.measured(sent + measured)).state is State.FAULTED
    follow(moving, 100)
    rest = moving.commands[-1].position
    assert follow(moving, 400)[-1].silent
    assert np.array_equal(moving.commands[-1].position, rest)


def test_an_arm_moved_by_hand_at_rest_is_a_fault_and_gets_no_command_to_jump_to(player: Any) -> None:
    follow(player, 200)
    away = np.where(np.arange(14) == 9, 0.12, 0.0)
    step = follow(player, 1, away=away)[0]
    assert step.state is State.FAULTED
    assert "'right_elbow' is 0.120 from its command at rest (limit 0.1)" in step.reason
    assert follow(player, 400)[-1].silent
    follow(player, 1, away=2 * away)
    with pytest.raises(
        ImageWamError, match=r"'right_elbow' is 0.240 from its command \(limit 0.05\); deactivate, reset"
    ):
        player.executor.reset_fault()
    player.executor.deactivate(player.now_ns)
    player.executor.reset_fault()
    here = player.commands[-1].position + 2 * away
    player.executor.activate(player.now_ns, player.measured(here))
    assert np.array_equal(player.tick().command.position, here)


def test_a_moving_command_leads_by_more_than_one_at_rest(moving: Any) -> None:
    for _ in range(40):
        lag = moving.commands[-1].position - 0.12 * MOVE / 0.3
        assert moving.executor.accept(moving.towards(moving.commands[0].position + MOVE), moving.now_ns).accepted
        assert moving.tick(joint_state=moving.measured(lag)).state is State.RUNNING


def test_after_a_reset_nothing_moves_before_it_is_resumed(moving: Any, middle: Any) -> None:
    moving.executor.fault("e-stop")
    assert follow(moving, 300)[-1].silent
    moving.executor.reset_fault()
    verdict = moving.executor.accept(moving.towards(middle), moving.now_ns)
    assert verdict.reason == "executor is on hold: fault reset, on hold until resumed; resume it first"
    assert follow(moving, 1)[-1].silent
    away = np.where(np.arange(14) == 2, 0.06, 0.0)
    follow(moving, 1, away=away)
    with pytest.raises(ImageWamError, match="'left_elbow' is 0.060 from its command"):
        moving.executor.resume()
    follow(moving, 1)
    moving.executor.resume()
    assert not follow(moving, 1)[-1].silent
    assert moving.executor.accept(moving.towards(middle), moving.now_ns).accepted


def test_drivers_must_be_heard_before_a_reset(moving: Any) -> None:
    follow(moving, 10)
    moving.run(1.0)
    assert moving.executor.state is State.FAULTED
    with pytest.raises(ImageWamError, match=r"left arm's joint states silent for 1.00 s .*; bring it back first"):
        moving.executor.reset_fault()
    follow(moving, 1)
    moving.executor.reset_fault()


def test_arms_whose_controller_fell_silent_get_no_command_until_they_are_in_place(moving: Any) -> None:
    moving.executor.note_controller("right", moving.now_ns)
    steps = follow(moving, 400)
    first = next(i for i, step in enumerate(steps) if step.silent)
    assert not np.array(steps[first].command.velocity).any() and steps[first - 20].command.position == pytest.approx(
        steps[first].command.position
    )
    moving.executor.note_controller("right", moving.now_ns)
    away = np.where(np.arange(14) == 2, 0.09, 0.0)
    follow(moving, 1, away=away)
    with pytest.raises(ImageWamError, match="'left_elbow' is 0.090 from its command"):
        moving.executor.resume()
    follow(moving, 1)
    moving.executor.resume()
    assert follow(moving, 1)[-1].state is State.HOLDING and not follow(moving, 1)[-1].silent


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


def test_drivers_are_heard_between_two_commands(moving: Any) -> None:
    follow(moving, 1)
    for _ in range(100):
        here = moving.measured(moving.commands[-1].position)
        early = moving.executor.step(moving.now_ns + moving.robot.period_ns // 2, here, moving.now_ns)
        assert early.periods == 0
        step = moving.tick()
    assert step.state is not State.FAULTED, step.reason


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


def test_a_controller_that_falls_silent_on_hold_leaves_arms_without_commands_until_they_are_in_place(
    moving: Any,
) -> None:
    moving.executor.note_controller("right", moving.now_ns)
    moving.executor.hold("lunch")
    steps = follow(moving, 400)
    assert steps[-1].silent and steps[-1].reason.startswith("right arm's controller silent")
    with pytest.raises(ImageWamError, match="right arm's controller silent for .*; bring it back first"):
        moving.executor.resume()


GIVING_WAY: list[tuple[str, Any]] = [
    ("hold", lambda p, frozen: p.executor.hold("asked to hold")),
    ("fault", lambda p, frozen: p.executor.fault("the control thread failed", "failure")),
    ("silence", lambda p, frozen: p.run(0.25)),
]


@pytest.mark.parametrize(("name", "stop"), GIVING_WAY)
def test_arms_that_give_way_stop_when_they_are_told_to(moving: Any, middle: Any, name: str, stop: Any) -> None:
    frozen = block(moving, middle)
    follow(moving, 100, frozen)
    while np.abs(moving.commands[-1].velocity).max() < 0.1:
        follow(moving, 1, frozen)
    stop(moving, frozen)
    steps = follow(moving, 60, frozen)
    assert not moving.commands[-1].velocity.any() and steps[-1].state is State.FAULTED
    assert np.abs(moving.commands[-1].position[:7] - frozen)[:6].max() > 0.05, "it would have gone further"
    assert steps[-1].reason.startswith("joint 'left_") and checker.check(moving.commands, moving.robot.limits) == []


def test_arms_give_way_however_old_the_last_chunk_is(make_player: Any, middle: Any) -> None:
    player = make_player(chunk_timeout_s=0.3)
    player.executor.accept(player.towards(middle + MOVE), player.now_ns)
    follow(player, 10)
    frozen = block(player, middle)
    follow(player, 1000, frozen)
    assert np.abs((player.commands[-1].position[:7] - frozen)[:6]).max() < 1e-3


def test_a_measurement_that_runs_away_meanwhile_is_not_followed(moving: Any, middle: Any) -> None:
    frozen = block(moving, middle)
    follow(moving, 30, frozen)
    follow(moving, 200, frozen - np.where(np.arange(7) == 0, 2.0, 0.0))
    assert moving.executor.at_rest and (moving.commands[-1].position[:6] > frozen[:6]).all()
