# SPDX-License-Identifier: Apache-2.0
"""Load a pretrained backbone into a network, to fine-tune from: authors' or diffusers' naming, strict.

Accepts a safetensors file, or a folder with one or more of them (a diffusers `transformer/`).
The action expert then starts from the backbone, see `expert_init`.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.checkpoint import audit
from imagewam_ros.model.expert_init import initialise_expert
from imagewam_ros.model.naming import flux2_from_diffusers
from imagewam_ros.model.network import ImageWamNetwork

PREFIXES = ("visual_generator.backbone.", "model.diffusion_model.", "transformer.")
"""What published files put before the backbone's names."""

DIFFUSERS_MARK = "x_embedder.weight"
"""A name that only diffusers' FLUX.2 has; OmniGen2 has it too, together with its own."""


def load_backbone(network: ImageWamNetwork, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Overwrite the backbone's weights and start the action expert from them. Raises CheckpointError."""
    state = dict(_tensors(path))
    wanted = network.video.state_dict()
    if DIFFUSERS_MARK in state and DIFFUSERS_MARK not in wanted:
        state = flux2_from_diffusers(state, list(wanted))
    audit({name: tuple(tensor.shape) for name, tensor in state.items()}, network.video, path)
    network.video.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, strict=True, assign=True)
    initialise_expert(network.action, network.video, network.inheritance())


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise CheckpointError(f"no safetensors at {path}; give a file or a folder that holds them")
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    yield _plain(name), opened.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{file} is not a readable safetensors file ({error}); copy it again") from error


def _plain(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name
