# SPDX-License-Identifier: Apache-2.0
"""Processes side by side: results in order, errors as they are, and no waiting for the dead."""

import signal

import pytest

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.workers import side_by_side


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_errors_as_they_are(workers: int) -> None:
    assert list(side_by_side(int, ["2", "1", "0"], workers)) == [2, 1, 0]
    with pytest.raises(ValueError, match="invalid literal .* 'three'"):
        list(side_by_side(int, ["1", "three", "2"], workers))


def test_a_process_that_dies_is_said() -> None:
    """SIGKILL is what the kernel sends when memory runs out."""
    with pytest.raises(EpisodeError, match="one of 2 processes died, .* again with fewer --workers"):
        list(side_by_side(signal.raise_signal, [signal.SIGKILL] * 2, 2))
