# SPDX-License-Identifier: Apache-2.0
"""Let the expert do one episode and keep what was seen, measured and wanted at every step."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.schema import Floats
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.curve import Curve, minimum_jerk
from imagewam_ros.sim.expert import PERIOD_NS, Expert

AMPLITUDES_RAD = (0.0, 0.01, 0.03, 0.06)
"""Standard deviations of the offsets; each episode draws one."""
OFFSET_NS = 400_000_000
"""A new offset is drawn this often."""


@dataclass(frozen=True)
class Demonstration:
    """One episode of T steps of period_ns. Row t was seen at stamps_ns[t].

    images holds (T, H, W, 3) uint8 by camera; positions and velocities (T, joints) are measured;
    targets (T, joints) are what the expert wanted one period later, without the perturbation.
    """

    seed: int
    task: str
    instruction: str
    success: bool
    period_ns: int
    joint_names: tuple[str, ...]
    stamps_ns: NDArray[np.int64]
    images: Mapping[str, NDArray[np.uint8]]
    positions: Floats
    velocities: Floats
    targets: Floats


def demonstrate(cell: Cell, seed: int, perturb: bool = True, instruction: str | None = None) -> Demonstration:
    """Reset the cell to `seed` and let an expert do what the seed, or `instruction`, asks for.

    With perturb the arms are led astray by slow offsets before they grasp; the targets stay the
    expert's, so they show the way back.
    """
    cell.reset(seed, instruction)
    expert = Expert(cell)
    expert.start()
    offset = _offsets(cell, expert, np.random.default_rng((seed, 2)) if perturb else None)
    states, targets = [], []
    images: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in cell.embodiment.camera_names}
    for _ in range(expert.steps):
        states.append(cell.joint_state())
        targets.append(expert.act())
        for name, frames in images.items():
            frames.append(cell.render(name))
        follow(cell, expert.curve, offset)
    return Demonstration(
        seed, cell.task_name, cell.instruction, cell.success(), PERIOD_NS, cell.embodiment.joint_names,
        np.array([state.stamp_ns for state in states]), {name: np.stack(frames) for name, frames in images.items()},
        np.stack([state.position for state in states]), np.stack([state.velocity for state in states]),
        np.stack(targets),
    )  # fmt: skip


def follow(cell: Cell, *curves: Curve) -> None:
    """Drive the cell for one policy period by the sum of curves, one sample per control period."""
    for _ in range(PERIOD_NS // cell.embodiment.period_ns):
        cell.step(np.sum([curve.at(cell.time_ns) for curve in curves], axis=0), cell.embodiment.period_ns)


def _offsets(cell: Cell, expert: Expert, rng: np.random.Generator | None) -> Curve:
    """Offsets of the arms: zero at the start, from the time when an arm's hand closes, and without rng."""
    rows = np.zeros((expert.steps + 1, len(cell.embodiment.joint_names)))
    if rng is not None:
        amplitude = rng.choice(AMPLITUDES_RAD)
        for arm in cell.embodiment.arms:
            first = cell.embodiment.arm_slice(arm.side).start
            wandering = _wandering(expert.free_ns(arm.side), amplitude, len(arm.joints), rng)
            rows[: len(wandering), first : first + len(arm.joints)] = wandering
    return Curve(expert.curve.start_ns, PERIOD_NS, rows)


def _wandering(duration_ns: int, amplitude_rad: float, joints: int, rng: np.random.Generator) -> Floats:
    """(periods, joints) from zero over random knots back to zero, within duration_ns, without a jerk."""
    count, every = (duration_ns - 1) // OFFSET_NS, OFFSET_NS // PERIOD_NS
    knots = np.zeros((count + 1, joints))
    knots[1:count] = amplitude_rad * rng.standard_normal((max(count - 1, 0), joints))
    blend = minimum_jerk(np.arange(every) / every)[:, None]
    pieces = [begin + blend * (end - begin) for begin, end in pairwise(knots)]
    return np.concatenate(pieces) if pieces else np.zeros((0, joints))
