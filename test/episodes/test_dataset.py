# SPDX-License-Identifier: Apache-2.0
"""Chunks and futures of demonstrations."""

from dataclasses import replace

import numpy as np
import pytest

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.dataset import Dataset, Demonstration


def demonstration(frames: int, start: float) -> Demonstration:
    positions = start + np.arange(frames, dtype=float)[:, None] * [1.0, 0.0]
    return Demonstration(f"d{start}", "wave", 1, positions, positions + np.array([1.0, 0.5]))


@pytest.fixture
def dataset() -> Dataset:
    return Dataset([demonstration(4, 0.0), demonstration(6, 100.0)], horizon=3, relative=(True, False))


def test_chunks_are_relative_where_asked(dataset: Dataset) -> None:
    chunks, padded = dataset.chunks(np.array([0, 4]))
    assert chunks[0].tolist() == [[1, 0.5], [2, 0.5], [3, 0.5]]
    assert chunks[1].tolist() == [[1, 100.5], [2, 100.5], [3, 100.5]]
    assert not padded.any()


def test_a_chunk_never_enters_the_next_demonstration(dataset: Dataset) -> None:
    chunks, padded = dataset.chunks(np.array([2, 3]))
    assert padded.tolist() == [[False, False, True], [False, True, True]]
    assert chunks[1].tolist() == [[1, 0.5]] * 3
    assert dataset.future(np.array([0, 3, 4, 9])).tolist() == [3, 3, 7, 9]


def test_nobody_knows_what_comes_after_an_open_end() -> None:
    whole, part = demonstration(4, 0.0), replace(demonstration(4, 50.0), open_end=True)
    unknown = Dataset([whole, part], 3, (True, False)).unknown(np.array([3, 4, 6, 7]))
    assert unknown.tolist() == [[False] * 3, [False] * 3, [False, False, True], [False, True, True]]


def test_frames_of_a_demonstration(dataset: Dataset) -> None:
    assert dataset.of([1]).tolist() == [4, 5, 6, 7, 8, 9]
    assert dataset.time.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]


def test_statistics_weigh_frames_equally(dataset: Dataset) -> None:
    rows = np.arange(len(dataset))
    state, action = dataset.statistics(rows)
    assert np.allclose(state.mean, dataset.positions.mean(0))
    assert np.allclose(action.mean, dataset.chunks(rows)[0].mean((0, 1)))


def test_nothing_to_learn_from() -> None:
    with pytest.raises(EpisodeError, match="no demonstrations"):
        Dataset([], 3, (True,))
