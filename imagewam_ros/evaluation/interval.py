# SPDX-License-Identifier: Apache-2.0
"""What a number of successes says: Wilson's interval and the paired test of two policies."""

import math
from typing import NamedTuple

Z95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


class Interval(NamedTuple):
    """Bounds of a rate, both in [0, 1]."""

    low: float
    high: float


def wilson(successes: int, trials: int, z: float = Z95) -> Interval:
    """Return Wilson's score interval of a rate. Raises ValueError without trials.

    Source: Wilson (1927), JASA 22, 209-212.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"expected 0 <= successes <= trials and a trial, found {successes} of {trials}")
    rate, square = successes / trials, z * z / trials
    centre = (rate + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def paired_p_value(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test: seeds that only one of two policies solved.

    Source: McNemar (1947), Psychometrika 12, 153-157, with the binomial in place of its limit.
    """
    decided, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(decided, k) for k in range(fewer + 1))
    return min(1.0, tail / 2.0 ** (decided - 1))
