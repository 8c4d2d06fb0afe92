# SPDX-License-Identifier: Apache-2.0
"""One trial: driver, executor and cell in one process, on the clock of the simulation.

The executor is the one that runs on a robot, at its rate. A chunk arrives latency_s after its
observation and the next observation is taken when the last chunk has arrived, so delays have the
effect that they have live.
"""

from collections.abc import Callable
from dataclasses import dataclass

from imagewam_ros.control import checker
from imagewam_ros.control.executor import Executor, ExecutorConfig
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk, Command
from imagewam_ros.evaluation.drivers import Driver
from imagewam_ros.sim.cell import Cell


@dataclass(frozen=True)
class TrialConfig:
    """latency_s from shutter to chunk; an observation is taken at most every so many frames of frame_ns."""

    latency_s: float = 0.06
    every_frames: int = 8
    frame_ns: int = 50_000_000

    def __post_init__(self) -> None:
        if not 0 <= self.latency_s <= 0.5 or self.every_frames < 1:
            raise ConfigError(
                f"latency_s is 0 to 0.5 and every_frames at least 1, found {self.latency_s} and {self.every_frames}"
            )


@dataclass(frozen=True)
class Outcome:
    """What came of one trial. violations counts commands outside the robot's limits, by the checker."""

    condition: str
    seed: int
    success: bool
    duration_s: float
    chunks: int
    refused: int
    limited_ticks: int
    violations: int
    refusal: str = ""


def run_trial(
    cell: Cell, driver: Driver, condition: str, seed: int, config: TrialConfig,
    watch: Callable[[Cell], None] | None = None,
) -> Outcome:  # fmt: skip
    """Reset the cell to `seed` and let `driver` try until success or the task's time limit.

    `watch` is called at every frame and may render.
    """
    cell.reset(seed)
    executor = Executor(cell.embodiment, ExecutorConfig())
    executor.activate(cell.time_ns, cell.joint_state())
    driver.start(cell, seed)
    period_ns, limit_ns = cell.embodiment.period_ns, round(cell.task.time_limit_s * 1e9)
    pending: ActionChunk | None = None
    commands: list[Command] = []
    observed_ns, chunks = -config.every_frames * config.frame_ns, 0
    while cell.time_ns < limit_ns and not cell.success():
        now = cell.time_ns
        if pending is not None and now >= pending.stamp_ns + config.latency_s * 1e9:
            executor.accept(pending, now)
            pending, chunks = None, chunks + 1
        if watch is not None and now % config.frame_ns == 0:
            watch(cell)
        due = now % config.frame_ns == 0 and now - observed_ns >= config.every_frames * config.frame_ns
        if due and pending is None:
            pending, observed_ns = driver.chunk(cell), now
        step = executor.step(now, cell.joint_state())
        if step.periods:
            commands.append(step.command)
        cell.step(step.command.position, period_ns)
    status = executor.status
    return Outcome(
        condition,
        seed,
        cell.success(),
        cell.time_ns * 1e-9,
        chunks,
        sum(status.refused.values()),
        status.limited_ticks,
        len(checker.check(commands, cell.embodiment.limits)),
        status.last_refusal,
    )
