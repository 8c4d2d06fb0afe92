# SPDX-License-Identifier: Apache-2.0
"""Encode every prompt once and keep the result on disk: the encoder may be larger than the network."""

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from imagewam_ros.model.protocol import TextEncoder
from imagewam_ros.training.disk import writing


def encode_prompts(encoder: TextEncoder, prompts: Sequence[str], path: Path) -> dict[str, Tensor]:
    """Return the tokens (L, ctx) of each prompt; what `path` lacks is encoded and added to it.

    The file belongs to one encoder: a run folder has one. It is whole or not there. Raises DiskError
    when it cannot be written.
    """
    known = load_file(path) if path.exists() else {}
    missing = [prompt for prompt in prompts if prompt not in known]
    if missing:
        known |= {prompt: encoder.encode(prompt).cpu().contiguous() for prompt in missing}
        part = path.with_suffix(".part")
        with writing(path):
            save_file(known, part)
            part.replace(path)
    return {prompt: known[prompt] for prompt in prompts}
