# SPDX-License-Identifier: Apache-2.0
"""Who makes the chunks of a trial: the policy, perhaps with spoilt images or words, a replay, or one-armed experts.

The spoilt ones answer whether the policy needs its eyes and whether the task needs both arms.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.schema import ActionChunk, Floats, Image, Observation, Source
from imagewam_ros.evaluation.source import Source as PolicySource
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.expert import HORIZON, PERIOD_NS, Expert
from imagewam_ros.sim.tasks import TASKS

CONDITIONS = {
    "normal": "the policy",
    "grey": "the policy, all images grey",
    "frozen": "the policy, first image for ever",
    "blind": "replay of the mean demonstration",
    "left_only": "expert, left arm alone",
    "right_only": "expert, right arm alone",
    "wrong_instruction": "the policy, told to do something else",
}
STANDARD = ("normal", "grey", "frozen", "blind", "left_only", "right_only")
"""What is asked unless others are named; a wrong instruction only says something of a policy that reads."""

WITHOUT_POLICY = ("blind", "left_only", "right_only")
MEAN_OF = 32
"""Expert plans that the mean demonstration is the mean of."""

GREY = 127


class Driver(Protocol):
    """Makes chunks for one trial after another."""

    def start(self, cell: Cell, seed: int) -> None:
        """Begin a trial on a cell that was just reset."""

    def chunk(self, cell: Cell) -> ActionChunk:
        """Return a chunk for the cell as it is now."""


def make_driver(condition: str, source: PolicySource | None, mean: Floats | None = None) -> Driver:
    """Return the driver of a condition; `mean` is the mean demonstration. Raises ConfigError for an unknown one."""
    if condition not in CONDITIONS:
        raise ConfigError(unknown_name("condition", condition, CONDITIONS))
    if condition == "blind":
        assert mean is not None
        return ReplayDriver(mean)
    if condition in WITHOUT_POLICY:
        return OneArmDriver(condition.removesuffix("_only"))
    assert source is not None
    return PolicyDriver(source, condition)


class PolicyDriver:
    """The policy on what the cameras see, on grey images or on the first ones."""

    def __init__(self, source: PolicySource, condition: str = "normal") -> None:
        self._policy, self._cameras, self._condition = source.policy, source.cameras, condition
        self._first: dict[str, Image] = {}
        self._seed, self._instruction = 0, ""

    def start(self, cell: Cell, seed: int) -> None:
        """Forget the last trial; noise is drawn from the trial's seed on."""
        self._first, self._seed = {}, seed * 1000
        wrong = self._condition == "wrong_instruction"
        self._instruction = wrong_instruction(cell, seed) if wrong else cell.instruction
        self._policy.set_instruction(self._instruction)

    def chunk(self, cell: Cell) -> ActionChunk:
        """Observe and infer."""
        state = cell.joint_state()
        observation = Observation(cell.time_ns, self._images(cell), state.position, self._instruction)
        self._seed += 1
        return self._policy.infer(observation, self._seed, ready_ns=cell.time_ns)

    def _images(self, cell: Cell) -> dict[str, Image]:
        if self._condition == "frozen" and self._first:
            return self._first
        images = {name: cell.render(name) for name in self._cameras}
        if self._condition == "grey":
            images = {name: np.full_like(image, GREY) for name, image in images.items()}
        self._first = self._first or images
        return images


class ReplayDriver:
    """The same joint targets (periods, joints) at the same times, whatever the cell holds."""

    def __init__(self, targets: Floats) -> None:
        self._targets = targets
        self._sequence = 0

    def start(self, cell: Cell, seed: int) -> None:
        """Nothing differs from trial to trial."""

    def chunk(self, cell: Cell) -> ActionChunk:
        """Return the targets that are due from now on, then the last for ever."""
        self._sequence += 1
        rows = cell.time_ns // PERIOD_NS + np.arange(HORIZON)
        positions = self._targets[np.minimum(rows, len(self._targets) - 1)]
        return ActionChunk(
            cell.time_ns,
            PERIOD_NS,
            cell.embodiment.joint_names,
            positions,
            sequence=self._sequence,
            source=Source.REPLAY,
        )


class OneArmDriver:
    """The expert, who sees everything, with one arm left where it started."""

    def __init__(self, side: str) -> None:
        self._side = side

    def start(self, cell: Cell, seed: int) -> None:
        """Plan for both arms."""
        self._expert = Expert(cell)
        self._expert.start()
        self._home = cell.joint_state().position

    def chunk(self, cell: Cell) -> ActionChunk:
        """Return the plan's rows for one arm, the start for the other."""
        planned = self._expert.chunk()
        positions = np.tile(self._home, (planned.rows, 1))
        moving = cell.embodiment.arm_slice(self._side)
        positions[:, moving] = planned.positions[:, moving]
        return ActionChunk(planned.stamp_ns, planned.period_ns, planned.joint_names, positions, source=Source.REPLAY)


def wrong_instruction(cell: Cell, seed: int) -> str:
    """Return another instruction than the scene's: one of the same task where it has several."""
    own = [text for text in cell.task.instructions if text != cell.instruction]
    others = [text for task in TASKS.values() for text in task.instructions if text != cell.instruction]
    choices = own or others
    return choices[seed % len(choices)]


def mean_demonstration(cell: Cell, seeds: Sequence[int]) -> Floats:
    """Return the mean over `seeds` of the expert's targets (periods, joints), the shorter ones held at their end."""
    plans = []
    for seed in seeds:
        cell.reset(seed)
        expert = Expert(cell)
        expert.start()
        plans.append(expert.curve.rows[1:])
    length = max(len(plan) for plan in plans)
    held = [np.concatenate([plan, np.repeat(plan[-1:], length - len(plan), 0)]) for plan in plans]
    mean: Floats = np.mean(held, axis=0)
    return mean
