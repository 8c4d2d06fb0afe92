# SPDX-License-Identifier: Apache-2.0
"""Demonstrations as one index of frames, with the action chunk that follows each. Images stay outside.

Frames of all demonstrations are numbered through, so whoever stores images or latents in the
same order finds them by that number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import Floats
from imagewam_ros.core.stats import Statistics

Rows = NDArray[np.int64]
STATISTICS_CHUNKS = 20_000
"""Chunks that the action statistics look at; more change nothing that matters."""


@dataclass(frozen=True)
class Demonstration:
    """One demonstration without its images: positions and actions (frames, joints), rad or m.

    open_end: it ends in the middle of a motion, where a human let go or frames are missing, and not where the task was
    done.
    """

    name: str
    instruction: str
    seed: int
    positions: Floats
    actions: Floats
    open_end: bool = False


class Dataset:
    """Frames of several demonstrations, numbered through."""

    def __init__(self, demonstrations: Sequence[Demonstration], horizon: int, relative: Sequence[bool]) -> None:
        """Join demonstrations. `relative` marks joints whose targets become differences from the measured position.

        Raises EpisodeError when there is none.
        """
        if not demonstrations:
            raise EpisodeError("no demonstrations to learn from; record some with `imagewam record`")
        self.demonstrations = tuple(demonstrations)
        self.horizon = horizon
        self.positions = np.concatenate([d.positions for d in demonstrations])
        self.actions = np.concatenate([d.actions for d in demonstrations])
        self._relative = np.asarray(relative, dtype=bool)
        lengths = np.array([len(d.positions) for d in demonstrations])
        stops = np.cumsum(lengths)
        self._last = np.repeat(stops - 1, lengths)
        self._open_end = np.repeat([d.open_end for d in demonstrations], lengths)
        self.owner = np.repeat(np.arange(len(lengths)), lengths)
        self.time = np.arange(len(self)) - np.repeat(stops - lengths, lengths)

    def __len__(self) -> int:
        """Number of frames of all demonstrations."""
        return len(self.positions)

    def chunks(self, rows: Rows) -> tuple[Floats, NDArray[np.bool_]]:
        """Action chunks (B, T, joints) of frames `rows` and where they run past the end (B, T).

        Past its end a demonstration stays at its last target. What comes after an open end is unknown: see `unknown`.
        """
        due = rows[:, None] + np.arange(self.horizon)  # (B, T)
        last = self._last[rows][:, None]
        chunks = self.actions[np.minimum(due, last)] - np.where(self._relative, self.positions[rows], 0.0)[:, None]
        return chunks, due > last

    def unknown(self, rows: Rows) -> NDArray[np.bool_]:
        """Where chunks (B, T) of frames `rows` run past an open end: nobody stopped there."""
        due = rows[:, None] + np.arange(self.horizon)
        unknown: NDArray[np.bool_] = (due > self._last[rows][:, None]) & self._open_end[rows][:, None]
        return unknown

    def future(self, rows: Rows) -> Rows:
        """Frames one horizon after `rows`, at most the last of the same demonstration."""
        later: Rows = np.minimum(rows + self.horizon, self._last[rows])
        return later

    def of(self, demonstrations: Sequence[int]) -> Rows:
        """Frames of some demonstrations, given by their place."""
        return np.flatnonzero(np.isin(self.owner, demonstrations))

    def every(self, count: int) -> Rows:
        """Every `count`-th frame of each demonstration, from its first on."""
        return np.flatnonzero(self.time % count == 0)

    def statistics(self, rows: Rows, seed: int = 0) -> tuple[Statistics, Statistics]:
        """Statistics of positions and of action chunks at frames `rows`, every frame weighing the same."""
        chosen = np.random.default_rng(seed).permutation(rows)[:STATISTICS_CHUNKS]
        chunks, _ = self.chunks(chosen)
        return Statistics.of(self.positions[rows]), Statistics.of(chunks.reshape(-1, chunks.shape[-1]))
