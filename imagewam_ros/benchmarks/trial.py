# SPDX-License-Identifier: Apache-2.0
"""What every benchmark gives: tasks, and one trial of one task by a policy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from imagewam_ros.core.schema import ActionChunk, Floats, Observation


class ChunkSource(Protocol):
    """A policy. Observations hold the benchmark's own state vector, chunks its own actions."""

    def infer(self, observation: Observation, seed: int = 0, ready_ns: int = 0) -> ActionChunk:
        """Return the chunk that follows an observation."""
        ...


@dataclass(frozen=True)
class Played:
    """What came of one trial; category is a kind of perturbation, empty where there are none."""

    task: str
    trial: int
    success: bool
    steps: int
    instruction: str
    category: str = ""


class Benchmark(Protocol):
    """Tasks by name and their trials. cameras names the images of its observations, in the order of a mosaic."""

    name: str
    cameras: tuple[str, ...]

    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        ...

    def play(self, task: str, source: ChunkSource, trials: int, seed: int) -> Iterator[Played]:
        """Play `trials` trials of one task."""
        ...


class RawSpace:
    """A policy's vectors as they are: `state` numbers in, the model's own actions out. See `core.spaces.Space`."""

    def __init__(self, state: int) -> None:
        self.joints = state

    def state(self, positions: Floats) -> Floats:
        """See `core.spaces.Space`."""
        return positions

    def targets(self, actions: Floats, positions: Floats) -> Floats:
        """See `core.spaces.Space`."""
        return actions

    def actions(self, targets: Floats, positions: Floats) -> Floats:
        """See `core.spaces.Space`."""
        return targets
