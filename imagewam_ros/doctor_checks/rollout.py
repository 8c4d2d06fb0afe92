# SPDX-License-Identifier: Apache-2.0
"""The policy itself: where it runs, how fast it warms up, and whether a dummy chunk keeps the limits."""

from collections.abc import Iterator

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import ActionChunk, Observation
from imagewam_ros.doctor_checks.finding import Finding, failed, passed, warned

STEP_SHARE = 1.5
"""Rows may be apart by this multiple of the velocity limit before the executor has to reshape them a lot."""
CHECK_DATA = "check that the checkpoint, its stats.json and the robot belong together"


def dummy_observation(robot: Embodiment) -> Observation:
    """Grey images and joints in the middle of their bounds."""
    grey = {c.name: np.full((c.height, c.width, 3), 128, dtype=np.uint8) for c in robot.cameras}
    return Observation(0, grey, (robot.limits.lower + robot.limits.upper) / 2, "doctor")


def check_speed(first_s: float, later_s: float, replan_period_s: float, device: str) -> Iterator[Finding]:
    """Judge seconds of the first inference, which warms up, and of later ones."""
    found = f"on {device}: first chunk {first_s:.2f} s, later ones {later_s:.3f} s"
    if later_s > replan_period_s:
        remedy = "use a GPU, fewer denoising steps, or a longer replan_period_s"
        yield failed("inference", f"{found}; longer than the replan period of {replan_period_s:g} s", remedy)
    elif later_s > replan_period_s / 2:
        remedy = "close what else uses the device, or raise replan_period_s"
        yield warned("inference", f"{found}; more than half of the replan period of {replan_period_s:g} s", remedy)
    else:
        yield passed("inference", found)


def check_chunk(
    chunk: ActionChunk, robot: Embodiment, start: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> Iterator[Finding]:
    """Judge a chunk that was inferred for joints at `start`, (joints,) in rad and m."""
    rows, limits, names = chunk.positions, robot.limits, chunk.joint_names
    columns = [robot.joint_names.index(name) for name in names]  # a policy may command one arm
    lower, upper, start = limits.lower[columns], limits.upper[columns], start[columns]
    if not np.isfinite(rows).all():
        yield failed("dummy chunk", f"{int((~np.isfinite(rows)).sum())} values are no numbers", CHECK_DATA)
        return
    over = np.maximum(lower - rows, rows - upper) / (upper - lower)
    row, joint = np.unravel_index(int(over.argmax()), over.shape)
    if over[row, joint] > 0.0:
        bounds = f"bounds {lower[joint]:g} to {upper[joint]:g}"
        found = f"row {row} puts {names[joint]} at {rows[row, joint]:.3f}, {bounds}"
        yield warned("dummy chunk", f"{found}; the executor would clamp it", CHECK_DATA)
    steps = np.abs(np.diff(np.vstack([start, rows]), axis=0)) / (limits.velocity[columns] * chunk.period_ns / 1e9)
    row, joint = np.unravel_index(int(steps.argmax()), steps.shape)
    found = f"{names[joint]} moves at {steps[row, joint]:.1f} times its velocity limit into row {row}"
    if steps[row, joint] > STEP_SHARE:
        yield warned("dummy chunk", f"{found}; grey images are no scene, but this is fast", CHECK_DATA)
    elif over.max() <= 0.0:
        yield passed("dummy chunk", f"{chunk.rows} rows inside bounds; fastest, {found}")
