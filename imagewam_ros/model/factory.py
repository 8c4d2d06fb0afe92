# SPDX-License-Identifier: Apache-2.0
"""The only place that knows the variants by name."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imagewam_ros.core.config import build
from imagewam_ros.core.errors import CheckpointError, unknown_name
from imagewam_ros.model.autoencoder import Flux2Codec, KlCodec, PackedKlCodec
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.flux2_network import Flux2Network
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.omnigen2_network import OmniGen2Network
from imagewam_ros.model.omnigen2_text import QwenVLText, VLTextSpec
from imagewam_ros.model.ovis_condition import OvisText, OvisTextSpec
from imagewam_ros.model.ovis_u1 import OvisU1Config
from imagewam_ros.model.ovis_u1_network import OvisU1Network
from imagewam_ros.model.protocol import ImageCodec, TextEncoder
from imagewam_ros.model.text import QwenText, TextSpec


@dataclass(frozen=True)
class Variant:
    """Classes of one backbone: its numbers, network, image codec, text side and the text's numbers."""

    config: type[Any]
    network: type[Any]
    codec: type[Any]
    text: type[Any]
    text_spec: type[Any]


VARIANTS: Mapping[str, Variant] = {
    "flux2": Variant(Flux2Config, Flux2Network, Flux2Codec, QwenText, TextSpec),
    "omnigen2": Variant(OmniGen2Config, OmniGen2Network, KlCodec, QwenVLText, VLTextSpec),
    "ovis_u1": Variant(OvisU1Config, OvisU1Network, PackedKlCodec, OvisText, OvisTextSpec),
}


@dataclass(frozen=True)
class ModelSpec:
    """What config.json says about the model: variant, numbers of the network, what is read of the text encoder.

    prefix_at_zero as it was in training (`protocol.JointBatch`); only the goal preview needs to know.
    """

    variant: str
    network: Any
    text: Any
    prefix_at_zero: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; `read_spec` reads it back."""
        return dataclasses.asdict(self)


def read_spec(data: Mapping[str, Any], where: str) -> ModelSpec:
    """Read the model part of config.json. Raises CheckpointError or ConfigError."""
    for key in ("variant", "network", "text"):
        if key not in data:
            raise CheckpointError(f"{where}: model lacks {key!r}; write the checkpoint again")
    chosen = variant(str(data["variant"]))
    at_zero = data.get("prefix_at_zero", True)
    if not isinstance(at_zero, bool):
        raise CheckpointError(f"{where}: model.prefix_at_zero must be true or false, found {at_zero!r}")
    return ModelSpec(
        str(data["variant"]),
        build(chosen.config, data["network"], f"{where}: model.network"),
        build(chosen.text_spec, data["text"], f"{where}: model.text"),
        at_zero,
    )


def variant(name: str) -> Variant:
    """Return the variant called `name`. Raises CheckpointError with the nearest match."""
    if name not in VARIANTS:
        raise CheckpointError(unknown_name("variant", name, VARIANTS))
    return VARIANTS[name]


def build_network(spec: ModelSpec, device: torch.device | str = "cpu") -> ImageWamNetwork:
    """Build the network with random weights; on "meta" it takes no memory."""
    with torch.device(device):
        network: ImageWamNetwork = variant(spec.variant).network(spec.network)
    return network


def load_codec(spec: ModelSpec, directory: Path, dtype: torch.dtype) -> ImageCodec:
    """Load the image codec from a diffusers directory."""
    codec: ImageCodec = variant(spec.variant).codec.load(directory, dtype)
    return codec


def load_text(spec: ModelSpec, directory: Path, max_length: int, dtype: torch.dtype) -> TextEncoder:
    """Load the text side from a checkpoint directory."""
    text: TextEncoder = variant(spec.variant).text.load(directory, spec.text, max_length, dtype)
    return text
