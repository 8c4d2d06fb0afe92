# SPDX-License-Identifier: Apache-2.0
"""The state machine: every transition with its trigger, and what a tick does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imagewam_ros.control import checker
from imagewam_ros.control.executor import Executor, ExecutorConfig, State
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch, ImageWamError, LimitViolation
from imagewam_ros.core.paths import share_dir
from imagewam_ros.core.schema import JointState, Source

ROBOTS = sorted(path.stem for path in (share_dir() / "config" / "robots").glob("*.yaml"))
MOVE = np.where(np.arange(14) % 7 == 6, 0.0, 0.3)


def running(player: Any) -> None:
    here = player.executor.reference().position
    assert player.executor.accept(player.towards(here + MOVE), player.now_ns).accepted
    player.run(0.3)


def holding(player: Any) -> None:
    player.tick()


def faulted(player: Any) -> None:
    running(player)
    player.executor.fault("test")
    player.run(0.5)


def taken(player: Any) -> None:
    running(player)
    player.executor.take_over(("left",))


def let_go(player: Any) -> None:
    running(player)
    player.executor.take_over(("left",), keep_policy=False)


def on_hold(player: Any) -> None:
    running(player)
    player.executor.hold("lunch")


def taken_on_hold(player: Any) -> None:
    taken(player)
    player.executor.hold("lunch")


def inactive(player: Any) -> None:
    player.executor.deactivate(player.now_ns)


Act = Callable[[Any], object]
TABLE: list[tuple[Act, State, Act, State, str, str]] = [
    (inactive, State.INACTIVE, lambda p: p.executor.activate(p.now_ns, p.measured(p.commands[-1].position if p.commands
     else p.executor.reference().position)), State.HOLDING, "activate", "activated; waiting for a chunk"),
    (holding, State.HOLDING, running, State.RUNNING, "chunk", "running chunk 0 of policy"),
    (running, State.RUNNING, lambda p: p.run(1.0), State.HOLDING, "rows_ended", "no new chunk: all rows of the last"),
    (running, State.RUNNING, lambda p: p.executor.hold("lunch"), State.HOLDING, "hold", "lunch"),
    (running, State.RUNNING, lambda p: p.executor.fault("broken"), State.FAULTED, "fault", "broken"),
    (holding, State.HOLDING, lambda p: p.executor.fault("broken"), State.FAULTED, "fault", "broken"),
    (running, State.RUNNING, lambda p: p.tick(1000), State.HOLDING, "time_jump", r"time jumped by \+5.00 s"),
    (running, State.RUNNING, lambda p: p.tick(-1000), State.HOLDING, "time_jump", "time jumped by -5.00 s"),
    (running, State.RUNNING, lambda p: p.executor.take_over(("left",)), State.TAKEOVER, "take_over", "the left arm"),
    (taken, State.TAKEOVER, lambda p: p.executor.release(p.now_ns), State.RUNNING, "release", "handed back; waiting"),
    (let_go, State.TAKEOVER, lambda p: p.executor.release(p.now_ns), State.HOLDING, "release", "handed back; waiting"),
    (taken, State.TAKEOVER, lambda p: p.executor.hold("lunch"), State.HOLDING, "hold", "lunch"),
    (taken, State.TAKEOVER, lambda p: p.tick(1000), State.TAKEOVER, "time_jump", "a human has the left arm"),
    (on_hold, State.HOLDING, lambda p: p.executor.take_over(("left",)), State.HOLDING, "take_over", "lunch"),
    (taken_on_hold, State.HOLDING, lambda p: p.executor.resume(), State.TAKEOVER, "resume", "a human has the left arm"),
    (taken_on_hold, State.HOLDING, lambda p: p.executor.release(p.now_ns), State.HOLDING, "release", "lunch"),
    (taken, State.TAKEOVER, lambda p: p.executor.fault("broken"), State.FAULTED, "fault", "broken"),
    (faulted, State.FAULTED, lambda p: p.executor.reset_fault(), State.HOLDING, "reset_fault", "fault reset, on hold"),
    (faulted, State.FAULTED, lambda p: (p.executor.deactivate(p.now_ns)), State.INACTIVE, "deactivate", "at rest"),
    (holding, State.HOLDING, lambda p: p.executor.deactivate(p.now_ns), State.INACTIVE, "deactivate", "at rest"),
    (running, State.RUNNING, lambda p: p.executor.deactivate(p.now_ns), State.HOLDING, "deactivate", "deactivating"),
]  # fmt: skip


@pytest.mark.parametrize(("prepare", "before", "act", "after", "trigger", "text"), TABLE)
def test_transition(player: Any, prepare: Act, before: State, act: Act, after: State, trigger: str, text: str) -> None:
    prepare(player)
    assert player.executor.state is before
    act(player)
    last = player.executor.transitions[-1]
    assert (last.before, last.after, last.trigger) == (before, after, trigger)
    with pytest.raises(ImageWamError, match=text):
        raise ImageWamError(last.reason)
    assert player.executor.status.state is after


@pytest.mark.parametrize(
    ("prepare", "act"),
    [
        (holding, lambda p: p.executor.resume()),
        (holding, lambda p: p.executor.reset_fault()),
        (holding, lambda p: p.executor.release(p.now_ns)),
        (faulted, lambda p: p.executor.hold("x")),
        (faulted, lambda p: p.executor.resume()),
        (faulted, lambda p: p.executor.take_over(("left",))),
        (faulted, lambda p: running_refused(p)),
        (on_hold, lambda p: running_refused(p)),
        (inactive, lambda p: p.executor.hold("x")),
        (inactive, lambda p: p.executor.fault("x")),
        (inactive, lambda p: running_refused(p)),
    ],
)
def test_no_other_request_changes_the_state(player: Any, prepare: Act, act: Act) -> None:
    prepare(player)
    before = player.executor.state, len(player.executor.transitions)
    act(player)
    assert (player.executor.state, len(player.executor.transitions)) == before


def running_refused(player: Any) -> None:
    verdict = player.executor.accept(player.towards(player.executor.reference().position), player.now_ns)
    assert verdict.kind == "state"


def test_hold_refuses_chunks_until_resumed(player: Any) -> None:
    on_hold(player)
    verdict = player.executor.accept(player.towards(player.executor.reference().position), player.now_ns)
    assert verdict.reason == "executor is on hold: lunch; resume it first"
    player.executor.resume()
    player.tick()
    here = player.executor.reference().position
    unseen = player.executor.accept(player.towards(here, stamp_ns=player.now_ns - 10_000_000), player.now_ns)
    assert "is from before the arms were stopped or handed over; waiting for the next" in unseen.reason
    running(player)
    assert player.executor.state is State.RUNNING


def test_a_stop_is_smooth_and_inside_the_limits(player: Any) -> None:
    for stop in (on_hold, faulted):
        stop(player)
        player.run(0.6)
        assert player.executor.at_rest
        if player.executor.state is State.FAULTED:
            player.executor.reset_fault()
        player.executor.resume()
    player.executor.deactivate(player.now_ns)
    assert checker.check(player.commands, player.robot.limits) == []


def test_deactivation_stops_softly_then_sends_nothing_more(player: Any) -> None:
    running(player)
    player.executor.deactivate(player.now_ns)
    while player.executor.state is not State.INACTIVE:
        player.tick()
    assert player.executor.at_rest
    assert checker.check(player.commands, player.robot.limits) == []
    with pytest.raises(ImageWamError, match="executor is inactive; activate it before stepping"):
        player.tick()


def test_fault_reset_waits_for_standstill(player: Any) -> None:
    running(player)
    player.executor.fault("broken")
    with pytest.raises(ImageWamError, match="the arms are still braking; reset the fault once they rest"):
        player.executor.reset_fault()


def test_a_fault_survives_deactivation_until_it_is_reset(player: Any, middle: Any) -> None:
    faulted(player)
    player.executor.deactivate(player.now_ns)
    with pytest.raises(ImageWamError, match="the fault was not reset: test; remove its cause and reset it"):
        player.executor.activate(player.now_ns, player.measured(middle))
    after = Executor(player.robot, fault=player.executor.open_fault)
    with pytest.raises(ImageWamError, match="the fault was not reset: test; remove its cause and reset it"):
        after.activate(player.now_ns, player.measured(middle))
    player.executor.reset_fault()
    player.executor.activate(player.now_ns, player.measured(middle))
    assert player.executor.state is State.HOLDING


def test_without_chunks_it_stays_where_it_is(player: Any, middle: Any) -> None:
    player.run(0.2)
    assert all(np.array_equal(c.position, middle) for c in player.commands)
    assert player.executor.state is State.HOLDING


def test_chunks_that_stop_end_in_a_smooth_hold_with_a_reason(player: Any) -> None:
    running(player)
    step = player.run(1.5)
    assert step.state is State.HOLDING
    assert step.reason == "no new chunk: all rows of the last one are done"
    assert player.executor.at_rest
    assert checker.check(player.commands, player.robot.limits) == []


def test_early_calls_repeat_the_command_and_late_ones_skip_whole_periods(player: Any) -> None:
    player.tick()
    again = player.executor.step(player.now_ns + 1)
    assert (again.periods, again.command.tick) == (0, 1)
    late = player.tick(2)
    assert (late.periods, late.command.tick) == (2, 3)
    assert late.command.nominal_ns == player.now_ns
    late = player.tick(4)
    assert (late.periods, late.command.tick) == (2, 5)
    assert late.command.nominal_ns == player.now_ns
    assert player.executor.status.late_ticks == 2


def test_a_late_tick_keeps_the_limits_over_the_time_that_passed(player: Any) -> None:
    running(player)
    for periods in (3, 1, 7, 2, 1, 19, 1, 1):
        player.tick(periods)
    assert player.executor.state is State.RUNNING
    assert checker.check(player.commands, player.robot.limits) == []


def sweep(player: Any) -> None:
    """Both arms at full speed."""
    limits = player.robot.limits
    away = np.where(player.robot.gripper_mask, 0.0, np.minimum(limits.upper - 0.1, 1.5))
    assert player.executor.accept(player.towards(away, rows=20), player.now_ns).accepted
    player.run(0.5)
    assert np.abs(player.commands[-1].velocity / limits.velocity).max() > 0.5


@pytest.mark.parametrize("late", [3, 7, 19])
def test_after_a_stall_no_command_is_further_than_two_periods_and_the_motion_goes_on(player: Any, late: int) -> None:
    sweep(player)
    before = player.commands[-1]
    assert player.tick(late).state is State.RUNNING
    step = np.abs(player.commands[-1].position - before.position)
    assert (step <= 2 * player.robot.limits.velocity * player.robot.period_ns * 1e-9).all()
    for _ in range(3):
        player.tick()
    assert np.abs(player.commands[-1].velocity - before.velocity).max() < 1.0, "it has not braked"
    target = before.position * 0.9
    assert player.executor.accept(player.towards(target), player.now_ns).accepted
    assert player.run(1.5).state is State.HOLDING
    assert np.abs(player.commands[-1].position - target).max() < 0.03
    assert checker.check(player.commands, player.robot.limits) == []


def test_a_clock_that_is_set_forward_by_little_moves_no_arm_faster(player: Any) -> None:
    sweep(player)
    before = player.commands[-1]
    player.now_ns += 16 * player.robot.period_ns
    player.now_ns += player.robot.period_ns
    step = player.executor.step(player.now_ns, elapsed_ns=player.robot.period_ns)
    assert (step.state, step.reason) == (State.HOLDING, "time jumped by +0.08 s; waiting for a chunk")
    moved = np.abs(step.command.position - before.position)
    assert (moved <= player.robot.limits.velocity * player.robot.period_ns * 1e-9).all()
    player.commands.append(step.command)
    player.run(1.0)
    assert player.executor.at_rest
    assert checker.check(player.commands, player.robot.limits) == []


@pytest.mark.parametrize("periods", [1000, -1000, 40])
def test_a_jump_of_time_moves_the_arms_by_one_period_at_most(player: Any, periods: int) -> None:
    running(player)
    before = player.commands[-1]
    step = player.tick(periods)
    assert step.command.tick == before.tick + 1
    assert step.command.nominal_ns == player.now_ns
    player.run(0.6)
    assert player.executor.at_rest
    assert checker.check(player.commands, player.robot.limits) == []
    running(player)
    assert player.executor.state is State.RUNNING


def test_nominal_time_advances_by_exact_periods_whatever_the_jitter(player: Any) -> None:
    rng, start = np.random.default_rng(0), player.now_ns
    for tick in range(1, 200):
        player.now_ns = start + tick * player.robot.period_ns + int(rng.integers(-1_000_000, 3_000_000))
        player.commands.append(player.executor.step(player.now_ns).command)
    assert [c.nominal_ns - start for c in player.commands] == [t * player.robot.period_ns for t in range(1, 200)]


@pytest.mark.parametrize("rate_hz", [50.0, 125.0, 1000.0])
def test_any_control_rate_plays_the_same_motion(robot: Embodiment, middle: Any, rate_hz: float) -> None:
    executor = Executor(replace(robot, control_rate_hz=rate_hz))
    executor.activate(0, JointState(0, robot.joint_names, middle, np.zeros(14)))
    from imagewam_ros.core.schema import ActionChunk

    rows = middle + MOVE * np.linspace(0, 1, 17)[1:, None] ** 2
    assert executor.accept(ActionChunk(0, 50_000_000, robot.joint_names, rows), 0).accepted
    period_ns = executor.embodiment.period_ns
    for tick in range(1, round(0.6 * rate_hz) + 1):
        command = executor.step(tick * period_ns).command
    assert command.position[0] == pytest.approx(0.3 * (0.6 / 0.8) ** 2, abs=1e-3)


def test_activation_refuses_joints_far_outside_their_bounds(robot: Embodiment, middle: Any) -> None:
    executor, position = Executor(robot), np.array(middle)
    position[0] = 3.0
    with pytest.raises(LimitViolation, match="'left_waist' is at 3.0000, outside -2.6 to 2.6; move it inside"):
        executor.activate(0, JointState(0, robot.joint_names, position, 0 * position))
    position[0], position[6] = 0.0, -1e-4
    executor.activate(0, JointState(0, robot.joint_names, position, 0 * position))
    assert executor.step(0).command.position[6] == 0.0


@pytest.mark.parametrize("name", ROBOTS)
def test_activation_steps_no_arm_of_any_robot(name: str) -> None:
    robot = load_embodiment(name)
    for joint in np.flatnonzero(~robot.gripper_mask):
        for bound, out in ((robot.limits.upper, 1), (robot.limits.lower, -1)):
            position = (robot.limits.lower + robot.limits.upper) / 2
            position[joint] = bound[joint] + out * 9e-4
            executor = Executor(robot)
            executor.activate(0, JointState(0, robot.joint_names, position, 0 * position))
            assert np.abs(executor.reference().position - position).max() < 1e-3
            position[joint] = bound[joint] + out * 2e-3
            with pytest.raises(LimitViolation, match=f"joint {robot.joint_names[joint]!r} is at .*; move it inside"):
                Executor(robot).activate(0, JointState(0, robot.joint_names, position, 0 * position))


def test_activation_takes_joints_in_any_order_but_not_too_few(robot: Embodiment, middle: Any) -> None:
    names = robot.joint_names[::-1]
    executor = Executor(robot)
    executor.activate(0, JointState(0, names, middle[::-1], np.zeros(14)))
    assert np.array_equal(executor.reference().position, middle)
    with pytest.raises(EmbodimentMismatch, match="joint states lack right_gripper; is every driver running"):
        Executor(robot).activate(0, JointState(0, robot.joint_names[:-1], middle[:-1], np.zeros(13)))


def test_only_an_inactive_executor_is_activated(player: Any, middle: Any) -> None:
    with pytest.raises(ImageWamError, match="executor is holding; only an inactive executor can be activated"):
        player.executor.activate(player.now_ns, player.measured(middle))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"smoothing_hz": 0.0}, "smoothing_hz must be positive, found 0.0"),
        ({"stop_share": 1.5}, r"stop_share must be in \(0, 1\], found 1.5"),
        ({"catch_up_s": -0.1}, "catch_up_s must not be negative, found -0.1; 0 suits the output"),
        ({"rule": "newest"}, "unknown merge rule 'newest'"),
        ({"tracking_error": -1.0}, "tracking_error must not be negative, found -1.0; 0 turns it off"),
    ],
)
def test_impossible_parameters_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        ExecutorConfig(**change)


def test_two_commanders_at_once_the_higher_wins_and_the_loser_is_told(player: Any) -> None:
    here = player.executor.reference().position
    player.executor.accept(player.towards(here, source=Source.TELEOP), player.now_ns)
    player.run(0.1)
    refused = player.executor.accept(player.towards(here), player.now_ns)
    assert refused.reason == "policy is refused: teleop commands the left arm and has priority"
    player.run(0.6)
    assert player.executor.accept(player.towards(here), player.now_ns).accepted
    assert player.executor.accept(player.towards(here, source=Source.REPLAY), player.now_ns).accepted
    assert player.executor.status.commander == "replay"


def test_a_chunk_longer_than_one_window_is_played_to_its_end(player: Any, middle: Any) -> None:
    rows = middle + MOVE * np.sin(np.arange(1, 181)[:, None] * 0.05 * 2.0)
    chunk = replace(player.towards(middle), positions=rows)
    assert player.executor.accept(chunk, player.now_ns).accepted
    start_ns = player.now_ns
    for _ in range(9 * 200):
        step = player.tick()
        expected = middle + MOVE * np.sin((player.now_ns - start_ns) * 1e-9 * 2.0)
        assert np.abs(step.command.position - expected).max() < 0.03 or player.now_ns - start_ns < 5e8
        assert step.state is State.RUNNING
    assert checker.check(player.commands, player.robot.limits) == []


def test_another_instruction_drops_what_the_one_before_it_wanted(player: Any, middle: Any) -> None:
    for number, way in enumerate((MOVE, -MOVE)):
        rows = np.tile(middle + way, (40, 1))
        chunk = replace(player.towards(middle), positions=rows, instruction_id=number)
        assert player.executor.accept(chunk, player.now_ns).accepted
        player.run(0.8)
    assert np.abs(player.commands[-1].position - middle + MOVE).max() < 0.01


def test_a_chunk_is_followed_no_longer_than_the_steady_clock_allows(make_player: Any, middle: Any) -> None:
    player = make_player(chunk_timeout_s=0.5)
    player.run(1.0)
    for _ in range(3):
        assert player.executor.accept(player.towards(middle + MOVE, rows=40), player.now_ns).accepted
        assert player.run(0.4).state is State.RUNNING
    assert player.run(0.15).reason == "no new chunk for 0.51 s (limit 0.5 s); waiting for a chunk"
    assert player.run(0.5).state is State.HOLDING and player.executor.at_rest
    running(player)
    assert player.executor.state is State.RUNNING
    assert checker.check(player.commands, player.robot.limits) == []


@pytest.mark.parametrize("stop", [
    lambda p: p.executor.hold("lunch"), lambda p: p.executor.fault("broken"), lambda p: p.tick(-1000)
])  # fmt: skip
def test_a_grasp_that_a_stop_cuts_off_is_lost(player: Any, middle: Any, stop: Act) -> None:
    open_m = np.where(np.arange(16) < 10, 0.005, -0.005)[:, None]
    rows = middle + np.where(player.robot.gripper_mask, open_m, 0.0)
    assert player.executor.accept(replace(player.towards(middle), positions=rows), player.now_ns).accepted
    stop(player)
    for travel in player.executor.status.travel.values():
        assert (travel.gripper_predicted, travel.gripper_lost) == (1, 1)


def test_same_inputs_same_commands(make_player: Any) -> None:
    logs = []
    for _ in range(2):
        player = make_player()
        running(player)
        player.tick(5)
        running(player)
        logs.append(np.array([c.position for c in player.commands]))
    assert np.array_equal(*logs)


def test_arms_that_are_being_stopped_need_no_drivers(make_player) -> None:
    """Deactivating blocks the callbacks that hear the drivers; that is no fault, and no hard brake."""
    player = make_player(joint_state_timeout_s=0.02)
    here = player.executor.reference().position
    assert player.executor.accept(player.towards(here + 2 * MOVE), player.now_ns).accepted
    for _ in range(60):
        player.tick(joint_state=player.measured(player.executor.reference().position))
    assert np.abs(player.commands[-1].velocity).max() > 0.2
    player.executor.deactivate(player.now_ns)
    states = set()
    while player.executor.state is not State.INACTIVE:
        states.add(player.tick().state)
        assert len(player.commands) < 1000
    assert State.FAULTED not in states
    assert player.executor.activate(player.now_ns, player.measured(player.commands[-1].position)) is None
