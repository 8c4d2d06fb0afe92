# SPDX-License-Identifier: Apache-2.0
"""A tick at 200 Hz must be cheap, and must not pile anything up."""

import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imagewam_ros.control.tracking import smooth
from imagewam_ros.core.schema import ActionChunk, Floats

PERIOD_NS = 50_000_000


@pytest.fixture
def busy(make_player: Any) -> Iterator[Any]:
    """A player and chunks with the noise of a policy: a new one every 0.4 s, grippers that snap."""
    robot = make_player().robot
    trajectory, rng = smooth(robot, np.random.default_rng(0), 0.5), np.random.default_rng(1)
    player = make_player(start=trajectory.at(np.zeros(1))[0])
    start_ns = player.now_ns

    def chunk() -> ActionChunk:
        times = (player.now_ns - start_ns) * 1e-9 + (1.0 + np.arange(16)) * 0.05
        rows: Floats = trajectory.at(times) + np.where(robot.gripper_mask, 0.0, rng.normal(0, 2e-3, (16, 14)))
        grip = np.where(np.floor(times) % 2, 0.0, 0.04)[:, None]
        return ActionChunk(player.now_ns, PERIOD_NS, robot.joint_names, np.where(robot.gripper_mask, grip, rows))

    player.chunk = chunk
    return player


def play(player: Any, seconds: float) -> None:
    for _ in range(round(seconds / 0.4)):
        assert player.executor.accept(player.chunk(), player.now_ns).accepted
        player.run(0.4)
        player.commands.clear()


@pytest.mark.usefixtures("uncollected")
def test_a_tick_takes_less_than_a_millisecond_of_cpu(busy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    play(busy, 1.2)
    before = time.process_time()
    play(busy, 6.0)
    per_tick_s = (time.process_time() - before) / (6.0 * busy.robot.control_rate_hz)
    with capsys.disabled():
        limited = busy.executor.status.limited_ticks / busy.executor.status.tick
        print(f"\n{per_tick_s * 1e6:.0f} us of CPU per tick with chunks included, {limited:.0%} of ticks limited")
    assert per_tick_s < 1e-3


def test_memory_does_not_grow_with_ticks(busy: Any) -> None:
    tracemalloc.start()
    try:
        play(busy, 6.0)  # longer than anything is remembered
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        play(busy, 4.0)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 64_000
    assert peak - before < 512_000


@pytest.mark.usefixtures("uncollected")
def test_a_guarded_executor_is_affordable(make_player: Any, robot: Any, middle: Floats) -> None:
    from imagewam_ros.control.guard import Guard, GuardConfig
    from imagewam_ros.kinematics.description import expand

    player = make_player(guard=Guard(robot, expand(), replace(GuardConfig(), speed_cap=1.0)))
    target = middle + np.where(np.arange(14) == 0, 0.3, 0.0)
    player.executor.accept(player.towards(target), player.now_ns)
    before = time.process_time()
    player.run(1.0)
    assert (time.process_time() - before) / robot.control_rate_hz < 2e-3
