# SPDX-License-Identifier: Apache-2.0
"""Does a checkpoint's scale hold what is demonstrated? What it cannot say is clipped, and would be taught wrongly."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.errors import EmbodimentMismatch
from imagewam_ros.core.schema import Floats
from imagewam_ros.core.spaces import Part, names
from imagewam_ros.core.stats import CLAMP, normaliser
from imagewam_ros.data.dataset import Rows
from imagewam_ros.training.samples import Samples

LOOKED_AT = 1000
"""Frames that are looked at, drawn evenly."""
MOST = 0.1
"""Share of demonstrated values beyond the scale that is an error; a few are noise of the measurement."""
HALFWAY = (0.05, 0.95)
"""Shares of the opening between which a gripper of two states is neither open nor closed."""


def check_fit(samples: Samples, rows: Rows) -> list[str]:
    """Return a line for each number of which the checkpoint's scale clips something.

    Raises EmbodimentMismatch, naming number and share, when it clips more than a tenth, or when commands of a
    gripper that only opens and closes lie in between.
    """
    rows = rows[:: max(1, len(rows) // LOOKED_AT)]
    contract = samples.contract
    chunks, _ = samples.taught(rows)
    said: list[str] = []
    failed: list[str] = []
    for kind, parts, values in (("state", contract.state, samples.measured(rows)), ("action", contract.action, chunks)):
        scale = normaliser(contract.normalisation, samples.statistics[kind])
        beyond = np.abs((values - scale.offset) / scale.divisor) >= CLAMP
        for name, share in zip(_names(contract, parts), beyond.reshape(-1, beyond.shape[-1]).mean(0), strict=True):
            line = f"{kind} {name}: {share:.1%} of the demonstrated values lie beyond the checkpoint's scale"
            (failed if share > MOST else said if share > 0 else []).append(line)
    if failed:
        raise EmbodimentMismatch(
            f"{'; '.join(failed)}. They would be clipped and taught wrongly: are frame, tool, units and order of an "
            "import those of this robot? A base that saw few demonstrations holds little: then train without --base"
        )
    _check_grippers(contract.action, chunks)
    return said


def _names(contract: Contract, parts: Sequence[Part]) -> tuple[str, ...]:
    return names(parts) or contract.joint_names


def _check_grippers(parts: Sequence[Part], chunks: Floats) -> None:
    start = 0
    for part in parts:
        values, start = chunks[..., start : start + part.size], start + part.size
        if part.gripper is None or part.gripper.threshold is None:
            continue
        closed, opened = np.array(part.gripper.closed), np.array(part.gripper.opened)
        opening: NDArray[np.float64] = ((values - closed) / (opened - closed)).mean(-1)
        between = float(((opening > HALFWAY[0]) & (opening < HALFWAY[1])).mean())
        if between > MOST:
            raise EmbodimentMismatch(
                f"{between:.0%} of the demonstrated commands of the {part.side} gripper are neither open nor closed, "
                "and the checkpoint only opens and closes: it would let go where a hand held something half open. "
                "Record with commands to open and close, or import without a threshold"
            )
