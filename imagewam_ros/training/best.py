# SPDX-License-Identifier: Apache-2.0
"""The mean weights with the lowest held-out chunk error so far: best.safetensors, beside the state of a run.

Trained weights alone, in float16 as a checkpoint has them; the step and the error stand in its header.
"""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from imagewam_ros.training.network import Progress, write_tensors
from imagewam_ros.training.team import gathered


class Best(NamedTuple):
    """After how many steps the held-out chunk error was lowest, and what it was."""

    step: int
    error: float


def read_best(path: Path) -> Best | None:
    """Read what is known of the best weights, None where none were kept."""
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        about = file.metadata()
    return Best(int(about["step"]), float(about["error"]))


def keep_best(progress: Progress, error: float, path: Path) -> bool:
    """Write the mean weights to `path` if no kept ones have as low an error. All processes call it.

    What another run left at `path` has to be removed first. Raises DiskError when the disk is full.
    """
    team = progress.team
    known = read_best(path)
    lower = error < (known.error if known else math.inf)
    if not team.mean(torch.tensor([float(team.leads and lower)])).item():  # one decides for all
        return False
    means = {name: progress.average.get(name, weight) for name, weight in progress.trained.items()}
    tensors = gathered(means, team)
    if team.leads:
        about = {"step": str(progress.step), "error": repr(error)}
        write_tensors(path, {name: tensor.half() for name, tensor in tensors.items()}, about)
    team.wait()
    return True


def best_weights(path: Path) -> dict[str, Tensor]:
    """Trained weights by name, as `keep_best` wrote them, in float32."""
    return {name: tensor.float() for name, tensor in load_file(path).items()}
