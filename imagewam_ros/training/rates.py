# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules as factors of the peak rate."""

import math


def cosine(step: int, steps: int, warmup: int, floor: float) -> float:
    """Linear warm-up, then half a cosine from 1 down to `floor`."""
    fraction = min(step / steps, 1.0)
    return min(1.0, (step + 1) / max(warmup, 1)) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fraction)))
