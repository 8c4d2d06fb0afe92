# SPDX-License-Identifier: Apache-2.0
"""Published backbone weights under a network's names: authors' or diffusers' naming, strict, read one by one.

Accepts a safetensors file, or a folder with one or more of them (a diffusers `transformer/`).
The action expert then starts from the backbone, see `expert_init`.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.checkpoint import audit
from imagewam_ros.model.naming import flux2_from_diffusers
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.safetensors_stream import TYPES, Lazy

PREFIXES = ("visual_generator.backbone.", "model.diffusion_model.", "transformer.")
"""What published files put before the backbone's names; where one does, its other tensors are no backbone's."""

DIFFUSERS_MARK = "x_embedder.weight"
"""A name that only diffusers' FLUX.2 has; OmniGen2 has it too, together with its own."""


def backbone_tensors(path: Path, network: ImageWamNetwork) -> dict[str, Lazy]:
    """Weights of `network.video`, by its own names, each read from its file when it is made.

    Raises CheckpointError naming every missing, unexpected and differently shaped one.
    """
    state = backbone_alone(published_tensors(path))
    wanted = network.video.state_dict()
    if DIFFUSERS_MARK in state and DIFFUSERS_MARK not in wanted:
        state = flux2_from_diffusers(state, list(wanted))
    audit({name: tensor.shape for name, tensor in state.items()}, network.video, path)
    return {name: state[name] for name in wanted}


def backbone_alone(state: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """What stands behind the first known prefix, or everything where there is none."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in state):
            return {n.removeprefix(prefix): tensor for n, tensor in state.items() if n.startswith(prefix)}
    return dict(state)


def published_tensors(path: Path) -> dict[str, Lazy]:
    """All tensors of a safetensors file or of a folder of them; nothing but headers is read. Raises CheckpointError."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise CheckpointError(f"no safetensors at {path}; give a file or a folder that holds them")
    found: dict[str, Lazy] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    part = opened.get_slice(name)
                    found[name] = Lazy(tuple(part.get_shape()), TYPES[part.get_dtype()], partial(_read, file, name))
        except SafetensorError as error:
            raise CheckpointError(f"{file} is not a readable safetensors file ({error}); copy it again") from error
        except KeyError as error:
            raise CheckpointError(
                f"{file} holds numbers of type {error}, which are not read; get the bfloat16 weights"
            ) from None
    return found


def _read(file: Path, name: str) -> Tensor:
    """Opened for each tensor, so that the mapped pages of the others can go."""
    with safe_open(file, framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(name)
    return tensor
