# SPDX-License-Identifier: Apache-2.0
"""A demonstration cut into chunks comes out as it was recorded."""

from typing import Any

import numpy as np
import pytest

from imagewam_ros.control import checker
from imagewam_ros.control.tracking import smooth
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import ActionChunk, Floats

PERIOD_NS, ROWS = 50_000_000, 16


@pytest.mark.parametrize(
    ("every", "latency_ns", "slack"),
    [(8, 0, 1e-4), (8, 120_000_000, 1e-4), (4, 250_000_000, 1e-3), (16, 0, 3e-3)],
)
def test_recorded_commands_are_reproduced_within_half_a_period(
    make_player: Any, every: int, latency_ns: int, slack: float
) -> None:
    """Every command lies between the recording half a period earlier and later, to within `slack` where it turns.

    Chunks that only just meet end without a row to lean on, so there it is larger.
    """
    robot = make_player().robot
    recording = smooth(robot, np.random.default_rng(2), share=0.5)
    player = make_player(start=recording.at(np.zeros(1))[0])
    start_ns, waiting = player.now_ns, []
    for index in range(12):
        stamp_ns = start_ns + index * every * PERIOD_NS
        rows = recording.at((stamp_ns - start_ns + (1.0 + np.arange(ROWS)) * PERIOD_NS) * 1e-9)
        waiting.append((stamp_ns + latency_ns, ActionChunk(stamp_ns, PERIOD_NS, robot.joint_names, rows)))
    while waiting:
        while waiting and waiting[0][0] <= player.now_ns:
            assert player.executor.accept(waiting.pop(0)[1], player.now_ns).accepted
        player.tick()
    times_s = np.array([(c.nominal_ns - start_ns) * 1e-9 for c in player.commands])
    sent = np.array([c.position for c in player.commands])
    settled = times_s > latency_ns * 1e-9 + 0.6
    half_s = PERIOD_NS * 0.5e-9
    window = np.stack([recording.at(times_s + shift) for shift in np.linspace(-half_s, half_s, 21)])
    inside = (sent >= window.min(axis=0) - slack) & (sent <= window.max(axis=0) + slack)
    assert inside[settled].all()
    assert np.abs(sent - recording.at(times_s))[settled].max() < slack
    assert checker.check(player.commands, robot.limits) == []


def test_recorded_commands_at_control_rate_come_out_again(make_player: Any) -> None:
    """A replay in chunks of 200 Hz rows, thinned by the timeline."""
    robot = make_player().robot
    recording = smooth(robot, np.random.default_rng(3), share=0.4)
    player, period_ns = make_player(start=recording.at(np.zeros(1))[0]), robot.period_ns
    start_ns = player.now_ns
    times = (1.0 + np.arange(600)) * period_ns * 1e-9
    chunk = ActionChunk(start_ns, period_ns, robot.joint_names, recording.at(times))
    assert player.executor.accept(chunk, player.now_ns).accepted
    player.run(2.9)
    sent = np.array([c.position for c in player.commands])
    late = times[: len(sent)] > 0.7
    assert np.abs(sent - recording.at(times[: len(sent)]))[late].max() < 2e-3


@pytest.fixture(scope="module")
def demonstration(robot: Embodiment) -> Floats:
    """(steps, joints) targets of the simulator's expert lifting a tray: turns, rests, and grippers that snap."""
    pytest.importorskip("mujoco")
    from imagewam_ros.sim.cell import Cell
    from imagewam_ros.sim.demonstration import follow
    from imagewam_ros.sim.expert import Expert

    cell = Cell(robot, "tray_lift")
    cell.reset(700)
    expert = Expert(cell)
    expert.start()
    targets = []
    for _ in range(expert.steps):
        targets.append(expert.act())
        follow(cell, expert.curve)
    return np.stack(targets)


@pytest.mark.parametrize(("latency_ns", "slack"), [(0, 2e-3), (120_000_000, 4e-3)])
def test_the_experts_demonstration_is_reproduced_within_half_a_period(
    make_player: Any, demonstration: Floats, latency_ns: int, slack: float
) -> None:
    player = make_player(start=demonstration[0])
    robot, start_ns = player.robot, player.now_ns
    starts = range(0, len(demonstration) - ROWS + 1, 8)
    waiting = [
        (at_ns + latency_ns, ActionChunk(at_ns, PERIOD_NS, robot.joint_names, demonstration[k : k + ROWS]))
        for k in starts
        for at_ns in (start_ns + k * PERIOD_NS,)
    ]
    while waiting:
        while waiting and waiting[0][0] <= player.now_ns:
            assert player.executor.accept(waiting.pop(0)[1], player.now_ns).accepted
        player.tick()
    times = np.array([(c.nominal_ns - start_ns) / PERIOD_NS for c in player.commands])
    sent = np.array([c.position for c in player.commands])
    due = 1.0 + np.arange(len(demonstration))
    shifted = [
        np.stack([np.interp(times + shift, due, column) for column in demonstration.T], axis=1)
        for shift in np.linspace(-0.5, 0.5, 21)
    ]
    over = np.maximum(np.min(shifted, axis=0) - sent, sent - np.max(shifted, axis=0))[
        times > 6
    ]  # the first chunk is caught up with until then
    assert np.ptp(demonstration, axis=0).max() > 0.3, "it is a real motion"
    assert over.max() < slack
