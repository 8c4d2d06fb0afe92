# SPDX-License-Identifier: Apache-2.0
"""Wilson's interval and the paired test, for any counts, against their definitions; the table of a demo."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.evaluation.interval import Z95, paired_p_value, wilson
from imagewam_ros.evaluation.trial import TrialConfig

COUNTS = st.integers(1, 400).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


@given(COUNTS)
def test_the_interval_holds_the_rate_and_lies_in_zero_to_one(counts):
    successes, trials = counts
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1


@given(COUNTS)
def test_bounds_solve_wilsons_equation(counts):
    """Each bound p is where the rate is exactly z standard errors of p away."""
    successes, trials = counts
    for bound in wilson(successes, trials):
        if 1e-9 < bound < 1 - 1e-9:
            error = math.sqrt(bound * (1 - bound) / trials)
            assert abs(successes / trials - bound) == pytest.approx(Z95 * error, rel=1e-6, abs=1e-9)


@given(COUNTS)
def test_failures_are_the_mirror_of_successes(counts):
    successes, trials = counts
    low, high = wilson(successes, trials)
    mirrored = wilson(trials - successes, trials)
    assert (1 - high, 1 - low) == (pytest.approx(mirrored.low, abs=1e-12), pytest.approx(mirrored.high, abs=1e-12))


@given(st.integers(1, 40), st.integers(1, 10))
def test_more_trials_narrow_it(trials, times):
    def width(factor):
        low, high = wilson(trials * factor, 2 * trials * factor)
        return high - low

    assert width(times + 1) < width(times)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0), (0, -1)])
def test_impossible_counts_are_refused(successes, trials):
    text = f"expected 0 <= successes <= trials and a trial, found {successes} of {trials}"
    with pytest.raises(ValueError, match=text):
        wilson(successes, trials)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_paired_test_is_symmetric_and_a_probability(first, second):
    p = paired_p_value(first, second)
    assert 0 <= p <= 1 and p == paired_p_value(second, first)
    if first == second:
        assert p == 1.0


@given(st.integers(0, 12), st.integers(0, 12))
def test_the_paired_test_sums_the_binomial(first, second):
    decided, fewer = first + second, min(first, second)
    tail = sum(math.comb(decided, k) * 0.5**decided for k in range(decided + 1) if k <= fewer or k >= decided - fewer)
    assert paired_p_value(first, second) == pytest.approx(min(1.0, tail if first != second else 1.0))


@given(st.integers(0, 30), st.integers(0, 30))
def test_more_one_sided_evidence_is_less_likely_by_chance(first, more):
    assert paired_p_value(first + more + 1, 0) <= paired_p_value(first + more, 0)


@pytest.mark.parametrize("change", [{"latency_s": -0.1}, {"latency_s": 0.6}, {"every_frames": 0}])
def test_impossible_trials_are_refused(change):
    with pytest.raises(ConfigError, match="latency_s is 0 to 0.5 and every_frames at least 1, found"):
        TrialConfig(**change)
