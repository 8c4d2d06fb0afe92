# SPDX-License-Identifier: Apache-2.0
"""One human, two arms: taking one, keeping or releasing the other, giving back without a step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imagewam_ros.control import checker
from imagewam_ros.control.executor import State
from imagewam_ros.core.schema import ActionChunk, Source

MOVE = np.where(np.arange(14) % 7 == 6, 0.0, 0.3)


def human(player: Any, offset: float = 0.05, side: slice = slice(0, 7)) -> ActionChunk:
    """What a leader arm streams: one row for the left arm, due soon."""
    target = player.executor.reference().position + MOVE / 0.3 * offset
    names = player.robot.joint_names[side]
    return ActionChunk(player.now_ns, 20_000_000, names, target[None, side], source=Source.TAKEOVER)


def policy(player: Any, target: Any) -> ActionChunk:
    return player.towards(target)


@pytest.fixture
def moving(player: Any, middle: Any) -> Any:
    assert player.executor.accept(policy(player, middle + MOVE), player.now_ns).accepted
    player.run(0.3)
    return player


def test_a_takeover_chunk_takes_the_arm_and_the_policy_keeps_the_other(moving: Any, middle: Any) -> None:
    executor = moving.executor
    assert executor.accept(human(moving, 0.01), moving.now_ns).accepted
    assert executor.state is State.TAKEOVER
    assert executor.status.taken_over == ("left",)
    left = moving.tick().command.position[0]
    assert executor.accept(policy(moving, middle - MOVE), moving.now_ns).accepted
    moving.run(0.8)
    command = moving.commands[-1].position
    assert command[0] == pytest.approx(left, abs=0.15), "the left arm must not follow the policy"
    assert command[7] < middle[7] - 0.2
    assert checker.check(moving.commands, moving.robot.limits) == []


def test_a_policy_that_released_moves_nothing(moving: Any, middle: Any) -> None:
    moving.executor.take_over(("left",), keep_policy=False)
    moving.run(0.5)
    before = moving.commands[-1].position
    verdict = moving.executor.accept(policy(moving, middle - MOVE), moving.now_ns)
    assert verdict.reason == "policy is refused: a human has the left arm; release it first"
    moving.run(0.5)
    assert np.array_equal(moving.commands[-1].position, before)


def test_nobody_but_the_human_moves_an_arm_that_is_taken(moving: Any) -> None:
    moving.executor.take_over(("left", "right"))
    verdict = moving.executor.accept(replace(human(moving), source=Source.TELEOP), moving.now_ns)
    assert verdict.reason == "teleop is refused: a human has the left and right arm; release it first"


def test_the_leader_must_be_matched_first(moving: Any) -> None:
    verdict = moving.executor.accept(human(moving, 0.5), moving.now_ns)
    assert verdict.kind == "jump"
    assert "(limit 0.1 s); bring the two together first" in verdict.reason
    assert moving.executor.state is State.RUNNING


def test_following_and_giving_back_are_without_a_step(moving: Any, middle: Any) -> None:
    executor = moving.executor
    executor.accept(human(moving, 0.0), moving.now_ns)
    for _ in range(40):
        moving.tick()
        assert executor.accept(human(moving, 0.02), moving.now_ns).accepted
        moving.run(0.02)
    before = moving.commands[-1]
    executor.release(moving.now_ns)
    assert executor.state is State.HOLDING, "the policy's rows for the right arm have ended long since"
    after = moving.tick().command
    assert np.abs(after.velocity - before.velocity).max() <= 0.005 * moving.robot.limits.acceleration.max()
    old = executor.accept(replace(policy(moving, middle), stamp_ns=moving.now_ns - 10_000_000), moving.now_ns)
    assert old.reason == "the observation is from before the arms were stopped or handed over; waiting for the next"
    moving.run(0.1)
    assert executor.accept(policy(moving, middle), moving.now_ns).accepted
    assert executor.state is State.RUNNING
    moving.run(1.0)
    assert np.abs(moving.commands[-1].position - middle).max() < 0.05
    assert checker.check(moving.commands, moving.robot.limits) == []


def test_a_silent_human_leaves_the_arm_still_and_taken(moving: Any) -> None:
    moving.executor.accept(human(moving, 0.02), moving.now_ns)
    step = moving.run(2.0)
    assert step.state is State.TAKEOVER
    assert moving.executor.at_rest


def test_arms_taken_over_on_hold_are_the_humans_once_it_is_resumed(moving: Any, middle: Any) -> None:
    moving.executor.hold("lunch")
    moving.run(0.6)
    moving.executor.take_over(("left",))
    assert "resume it first" in moving.executor.accept(human(moving, 0.01), moving.now_ns).reason
    moving.executor.resume()
    assert moving.executor.state is State.TAKEOVER
    left = moving.commands[-1].position[:7]
    assert moving.executor.accept(policy(moving, middle - MOVE), moving.now_ns).accepted
    moving.run(0.5)
    assert np.array_equal(moving.commands[-1].position[:7], left)
    assert moving.executor.accept(human(moving, 0.01), moving.now_ns).accepted


def held(player: Any) -> None:
    player.executor.hold("lunch")
    player.run(0.6)
    player.executor.resume()


def faulted(player: Any) -> None:
    player.executor.fault("broken")
    player.run(0.6)
    player.executor.reset_fault()
    player.executor.resume()


@pytest.mark.parametrize("disturb", [held, faulted, lambda p: p.tick(30), lambda p: p.tick(-1000)])
def test_whatever_happens_the_policy_gets_no_arm_that_a_human_has(moving: Any, middle: Any, disturb: Any) -> None:
    executor = moving.executor
    assert executor.accept(human(moving, 0.01), moving.now_ns).accepted
    moving.run(0.1)
    disturb(moving)
    assert (executor.state, executor.status.taken_over) == (State.TAKEOVER, ("left",))
    moving.run(0.6)
    left = moving.commands[-1].position[:7]
    assert executor.accept(policy(moving, middle - MOVE), moving.now_ns).accepted
    moving.run(1.0)
    assert np.array_equal(moving.commands[-1].position[:7], left)
    assert np.abs(moving.commands[-1].position - middle + MOVE)[7:].max() < 0.05
    assert executor.accept(human(moving, 0.01), moving.now_ns).accepted
    assert checker.check(moving.commands, moving.robot.limits) == []


def test_after_a_stop_the_leader_must_be_matched_again(moving: Any) -> None:
    moving.executor.accept(human(moving, 0.01), moving.now_ns)
    held(moving)
    assert "bring the two together first" in moving.executor.accept(human(moving, 0.5), moving.now_ns).reason
    moving.executor.take_over(("right",))
    verdict = moving.executor.accept(human(moving, 0.5, slice(7, 14)), moving.now_ns)
    assert "bring the two together first" in verdict.reason


@pytest.mark.parametrize("release", [lambda e, now: e.release(now), lambda e, now: e.deactivate(now)])
def test_the_next_human_decides_anew_whether_the_policy_goes_on(moving: Any, middle: Any, release: Any) -> None:
    executor = moving.executor
    executor.take_over(("left",), keep_policy=False)
    moving.run(0.6)
    release(executor, moving.now_ns)
    assert executor.status.taken_over == ()
    if executor.state is State.INACTIVE:
        executor.activate(moving.now_ns, moving.measured(moving.commands[-1].position))
    moving.run(0.1)
    assert executor.accept(human(moving, 0.01), moving.now_ns).accepted
    moving.run(0.1)
    assert executor.accept(policy(moving, middle), moving.now_ns).accepted


def test_arms_are_handed_back_in_a_fault_without_ending_it(moving: Any) -> None:
    executor = moving.executor
    executor.take_over(("left",))
    executor.fault("broken")
    executor.release(moving.now_ns)
    assert (executor.state, executor.status.reason, executor.status.taken_over) == (State.FAULTED, "broken", ())


def test_streamed_targets_are_followed_within_a_tenth_of_a_second(player: Any, middle: Any) -> None:
    """A teleoperated sine of 0.5 Hz at 50 targets per second."""
    start_ns, late = player.now_ns, []
    for _ in range(200):
        t = (player.now_ns - start_ns) * 1e-9
        target = middle + MOVE * np.sin(np.pi * t)
        names = player.robot.joint_names
        chunk = ActionChunk(player.now_ns, 20_000_000, names, target[None], source=Source.TELEOP)
        assert player.executor.accept(chunk, player.now_ns).accepted
        player.run(0.02)
        late.append((t, player.commands[-1].position[0]))
    times, found = np.array(late).T
    lags = np.arange(0.0, 0.3, 0.01)
    errors = [np.sqrt(np.mean((found[50:] - 0.3 * np.sin(np.pi * (times[50:] - lag))) ** 2)) for lag in lags]
    assert lags[int(np.argmin(errors))] <= 0.1
    assert min(errors) < 0.01
    assert checker.check(player.commands, player.robot.limits) == []
