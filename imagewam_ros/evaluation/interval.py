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


def paired_interval(both: int, only_first: int, only_second: int, neither: int, z: float = Z95) -> Interval:
    """Interval of the difference of two success rates, first minus second, on the same seeds, in [-1, 1].

    Source: Newcombe (1998), Statistics in Medicine 17, 2635-2650, method 10.
    """
    total = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    p, q = first / total, second / total
    (p_low, p_high), (q_low, q_high) = wilson(first, total, z), wilson(second, total, z)
    spread = first * (total - first) * second * (total - second)
    agreement = float(both * neither - only_first * only_second)
    if agreement > 0:
        agreement = max(agreement - total / 2, 0)  # continuity correction
    phi = agreement / math.sqrt(spread) if spread else 0.0

    def length(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    return Interval(p - q - length(p - p_low, q_high - q), p - q + length(p_high - p, q - q_low))
