# SPDX-License-Identifier: Apache-2.0
"""From the state of a run to checkpoints that a robot loads: `checkpoint/` has the last weights, `best/` the best."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from imagewam_ros.model.factory import build_network
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.training.best import Best, best_weights, read_best
from imagewam_ros.training.disk import writing
from imagewam_ros.training.lora import inject, merge
from imagewam_ros.training.network import Progress, averaged
from imagewam_ros.training.presets import Preset
from imagewam_ros.training.team import gathered

LAST, BEST, KEPT = "checkpoint", "best", "best.safetensors"


def export(progress: Progress, preset: Preset, trained: Mapping[str, Tensor] | None = None) -> ImageWamNetwork | None:
    """Return a plain network on the CPU with the mean weights, adapters merged; None where another process leads.

    trained are weights by name to take instead of the mean ones. All processes call it.
    """
    with averaged(progress) as network:
        state = gathered(network.state_dict(), progress.team)
    if not progress.team.leads:
        return None
    plain = build_network(preset.spec)
    if preset.training.lora_rank:
        inject(plain, preset.training.lora_rank, preset.training.lora_alpha)
    plain.load_state_dict({**state, **(trained or {})})
    if preset.training.lora_rank:
        merge(plain)
    return plain.eval()


def write_checkpoints(
    out: Path, progress: Progress, preset: Preset, write: Callable[[Path, ImageWamNetwork], None]
) -> tuple[str, Best | None]:
    """Let `write` fill the folders of a run and return which has the best weights, and what is known of these.

    Where the last weights are the best ones, `best/` would be the same again and is not kept. All processes call it.
    """
    known = read_best(out / KEPT)
    last_is_best = known is None or known.step == progress.step
    for folder in (LAST,) if last_is_best else (LAST, BEST):
        trained = best_weights(out / KEPT) if folder == BEST and progress.team.leads else None
        exported = export(progress, preset, trained)
        if exported is not None:
            with writing(out / folder):
                (out / folder / "config.json").unlink(missing_ok=True)
                write(out / folder, exported)
    if last_is_best and progress.team.leads:
        shutil.rmtree(out / BEST, ignore_errors=True)
    return (LAST if last_is_best else BEST), known
