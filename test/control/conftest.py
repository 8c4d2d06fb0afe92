# SPDX-License-Identifier: Apache-2.0
"""The simulated cell's robot, chunks for it, and an executor with a clock of its own."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from imagewam_ros.control.executor import Executor, ExecutorConfig, Step
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.schema import ActionChunk, Command, Floats, JointState

PERIOD_NS = 50_000_000


@pytest.fixture(scope="session")
def robot() -> Embodiment:
    return load_embodiment("sim_cell")


@pytest.fixture
def middle(robot: Embodiment) -> Floats:
    return (robot.limits.lower + robot.limits.upper) / 2


class Player:
    """An executor at the clock `now_ns`; keeps every command."""

    def __init__(self, robot: Embodiment, start: Floats, config: ExecutorConfig, **options: object) -> None:
        self.robot, self.now_ns, self.commands = robot, 10**12, list[Command]()
        self.executor = Executor(robot, config, **options)
        self.executor.activate(self.now_ns, self.measured(start))

    def measured(self, position: Floats) -> JointState:
        return JointState(self.now_ns, self.robot.joint_names, position, np.zeros(position.size))

    def tick(self, periods: int = 1, joint_state: JointState | None = None) -> Step:
        self.now_ns += periods * self.robot.period_ns
        step = self.executor.step(self.now_ns, joint_state)
        if step.periods:
            self.commands.append(step.command)
        return step

    def run(self, seconds: float) -> Step:
        for _ in range(round(seconds * self.robot.control_rate_hz)):
            step = self.tick()
        return step

    def towards(self, target: Floats, rows: int = 16, **changes: object) -> ActionChunk:
        """A chunk observed now that moves from the reference to `target` along a smooth step."""
        here = self.executor.reference().position
        share = np.linspace(0, 1, rows + 1)[1:, None]
        positions = here + (target - here) * (3 * share**2 - 2 * share**3)
        chunk = ActionChunk(self.now_ns, PERIOD_NS, self.robot.joint_names, positions, contract_hash="one")
        return replace(chunk, **changes)


@pytest.fixture
def make_player(robot: Embodiment, middle: Floats) -> Callable[..., Player]:
    def make(start: Floats | None = None, guard: object = None, **parameters: object) -> Player:
        return Player(robot, middle if start is None else start, ExecutorConfig(**parameters), guard=guard)

    return make


@pytest.fixture
def player(make_player: Callable[..., Player]) -> Player:
    return make_player()
