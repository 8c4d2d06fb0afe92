# SPDX-License-Identifier: Apache-2.0
"""The case in which peers lose half of the motion: chunks that move late.

After a field report on ImageWAM with two UR3 arms (armanakbari/ImageWAM-UR3, 2026): chunks of 16
rows at 15 Hz whose row 0 is the present pose and of whose travel 56 % lies in rows 8 to 15,
inference 0.23 s. A loop that waits for inference, plays rows 0 to 7 and asks again travelled
3.2 rad where the demonstration travelled 5.6 rad. The policy below predicts such chunks from
wherever the arms are observed; promised travel is that of the demonstration at its own speed.
"""

from typing import NamedTuple

import numpy as np

from imagewam_ros.control.executor import Executor, ExecutorConfig
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import ActionChunk, Floats, JointState

RATE_HZ = 15.0
ROWS = 16
EVERY = 8
LATENCY_S = 0.23
FIRST_HALF = 0.44
"""Share of a chunk's travel in its rows 0 to 7."""

SPEED = 0.25
"""Speed of the demonstration, rad/s; any that the limits allow gives the same ratio."""


class Case(NamedTuple):
    """Net and promised travel of one joint over time_s (n,), rad; going back counts against it."""

    time_s: Floats
    travelled: Floats
    promised: Floats

    @property
    def ratio(self) -> float:
        """Travelled over promised at the end."""
        return float(self.travelled[-1] / self.promised[-1])


def profile(first_half: float = FIRST_HALF) -> Floats:
    """(rows,) share of a chunk's travel that each row has reached."""
    rows = np.arange(ROWS, dtype=np.float64) / (ROWS - 1)
    reached: Floats = rows ** (np.log(first_half) / np.log((EVERY - 1) / (ROWS - 1)))
    return reached


def through_executor(
    robot: Embodiment,
    config: "ExecutorConfig | None" = None,
    first_half: float = FIRST_HALF,
    duration_s: float = 10.0,
    every: int = EVERY,
) -> Case:
    """Play the late-moving policy through the executor; it is asked every `every` periods of its rows."""
    executor, share = Executor(robot, config), profile(first_half)
    middle = (robot.limits.lower + robot.limits.upper) / 2
    start = np.where(robot.gripper_mask, middle, robot.limits.lower + 0.05)
    travel = np.where(robot.gripper_mask, 0.0, SPEED * (ROWS - 1) / RATE_HZ)
    period_ns, tick_ns = round(1e9 / RATE_HZ), robot.period_ns
    executor.activate(0, JointState(0, robot.joint_names, start, np.zeros(start.size)))
    positions, flight, position = [start], list[tuple[int, ActionChunk]](), start
    for tick in range(1, int(duration_s * 1e9 / tick_ns)):
        now_ns = tick * tick_ns
        if now_ns // (every * period_ns) > (now_ns - tick_ns) // (every * period_ns) or tick == 1:
            rows = position + share[:, None] * travel
            chunk = ActionChunk(now_ns, period_ns, robot.joint_names, rows, first_row_offset_periods=0.0)
            flight.append((now_ns + round(LATENCY_S * 1e9), chunk))
        while flight and flight[0][0] <= now_ns:
            executor.accept(flight.pop(0)[1], now_ns)
        position = executor.step(now_ns).command.position
        positions.append(position)
    time_s = np.arange(len(positions), dtype=np.float64) * tick_ns * 1e-9
    joint = int(np.argmin(robot.gripper_mask))
    return _case(time_s, np.array(positions)[:, joint])


def replan_from_row_zero(first_half: float = FIRST_HALF, duration_s: float = 10.0) -> Case:
    """The loop of the report: wait for inference, play rows 0 to 7, ask again."""
    share, time_s, travelled = profile(first_half), [0.0], [0.0]
    while time_s[-1] < duration_s:
        base = travelled[-1]
        time_s.append(time_s[-1] + LATENCY_S)
        travelled.append(base)
        for row in range(EVERY):
            time_s.append(time_s[-1] + 1 / RATE_HZ)
            travelled.append(base + float(share[row]) * SPEED * (ROWS - 1) / RATE_HZ)
    return _case(np.array(time_s), np.array(travelled))


def _case(time_s: Floats, positions: Floats) -> Case:
    """Promises begin when the first chunk could have arrived, for both alike."""
    travelled = positions - positions[0]
    return Case(time_s, travelled, SPEED * np.maximum(time_s - LATENCY_S, 0.0))
