# SPDX-License-Identifier: Apache-2.0
"""Recorded observations through a policy, and the first chunk that differs from the recorded one.

Answers "did another checkpoint, precision or machine change what the policy does?" Frames are paired
by the rule that serves the live policy; a chunk whose observation is not in the bag is counted, not judged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.core.schema import ActionChunk, Observation, Source
from imagewam_ros.data.bag_streams import frame_images, plan_frames, read_streams
from imagewam_ros.data.run_log import RunLog
from imagewam_ros.policy import Policy


class Difference(NamedTuple):
    """Where a chunk first differs."""

    sequence: int
    stamp_ns: int
    row: int
    joint: str
    recorded: float
    inferred: float

    def __str__(self) -> str:
        change = f"was {self.recorded:.6g} and is {self.inferred:.6g} now ({self.inferred - self.recorded:+.2e})"
        return f"first divergence in chunk {self.sequence}, row {self.row}: joint {self.joint!r} {change}"


@dataclass(frozen=True)
class Inferred:
    """What became of the recorded chunks of a policy. largest is in rad or m."""

    compared: int
    without_observation: int
    largest: float
    first: "Difference | None"

    @property
    def diverged(self) -> bool:
        """True where a chunk differs."""
        return self.first is not None

    def to_dict(self) -> dict[str, Any]:
        """Return what a program reads."""
        return {
            "compared": self.compared,
            "without_observation": self.without_observation,
            "largest_difference": self.largest,
            "first_divergence": self.first._asdict() if self.first else None,
        }

    def __str__(self) -> str:
        agree = "identical bit for bit" if self.largest == 0 else f"they differ by at most {self.largest:.1e} rad or m"
        left = f" ({self.without_observation} without their observation in the bag)" if self.without_observation else ""
        return f"{self.compared} chunks inferred again{left}: {self.first or agree}"


def infer_again(
    directory: Path, checkpoint: Path, robot: Embodiment, device: str, log: RunLog, tolerance: float
) -> Inferred:
    """Infer every recorded policy chunk again from its observation, with its seed and committed rows.

    Raises CheckpointError, EmbodimentMismatch, and EpisodeError where the bag is no episode or was
    made by another contract.
    """
    path = share_dir() / "models" / checkpoint if not checkpoint.exists() else checkpoint
    policy = Policy.load(path, robot, device)
    recorded = [h.chunk for h in log.chunks if h.chunk.source is Source.POLICY]
    hashes = sorted({chunk.contract_hash for chunk in recorded} - {policy.contract.hash})
    if hashes:
        raise EpisodeError(
            f"{directory} holds chunks of contract {', '.join(hashes)}, {path} has {policy.contract.hash}; "
            "name the checkpoint that was recorded, or one with the same contract"
        )
    largest, first, compared = 0.0, None, 0
    for observation, chunk, before in _observations(directory, recorded):
        compared += 1
        inferred = _infer(policy, observation, chunk, before)
        apart = np.abs(inferred.positions - chunk.positions)
        largest = max(largest, float(apart.max()))
        if first is None and not (apart <= tolerance).all():
            row, joint = divmod(int(apart.argmax()), apart.shape[1])
            values = float(chunk.positions[row, joint]), float(inferred.positions[row, joint])
            first = Difference(chunk.sequence, chunk.stamp_ns, row, chunk.joint_names[joint], *values)
    return Inferred(compared, len(recorded) - compared, largest, first)


def _infer(policy: Policy, observation: Observation, chunk: ActionChunk, before: "ActionChunk | None") -> ActionChunk:
    """Infer as it was: after the same number of rows of the chunk before."""
    committed_ns = round((chunk.first_row_offset_periods + chunk.committed_rows - 1) * chunk.period_ns)
    running, delay_ns = (before, committed_ns) if chunk.committed_rows else (None, 0)
    return policy.infer(observation, chunk.seed, running=running, delay_ns=delay_ns)


def _observations(
    directory: Path, chunks: list[ActionChunk]
) -> Iterator[tuple[Observation, ActionChunk, "ActionChunk | None"]]:
    """Yield each chunk's observation, the chunk, and the one before it of the same instruction."""
    streams = read_streams(directory)
    plan = plan_frames(streams)
    known = {chunk.stamp_ns: (chunk, before) for before, chunk in zip((None, *chunks), chunks, strict=False)}
    wanted = plan.part(np.flatnonzero(np.isin(plan.stamps_ns, list(known))))
    for row, images in enumerate(frame_images(directory, wanted)):
        chunk, before = known[int(wanted.stamps_ns[row])]
        if before is not None and before.instruction_id != chunk.instruction_id:
            before = None
        positions = wanted.positions[row]
        yield Observation(chunk.stamp_ns, images, positions, streams.provenance.instruction), chunk, before
