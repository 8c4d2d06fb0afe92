# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="no-any-return"
"""Reference directories of Ovis-U1."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from imagewam_ros.model.autoencoder import KlCodec, PackedKlCodec
from imagewam_ros.model.ovis_u1 import OvisU1Config
from imagewam_ros.model.ovis_u1_network import OvisPrefix, OvisU1Network
from imagewam_ros.model.protocol import Context
from imagewam_ros.model.reference import CLOSE, EXACT, Reference, Rule, read_tensors

VAE_KEYS = (
    "block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups", "scaling_factor",
    "shift_factor", "force_upcast", "use_quant_conv", "use_post_quant_conv",
)  # fmt: skip


class OvisU1Reference(Reference):
    """See `reference.Reference`."""

    network_class: ClassVar[type[OvisU1Network]] = OvisU1Network
    codec_class: ClassVar[type[KlCodec]] = PackedKlCodec
    transformer_prefix = "visual_generator.backbone."
    gradients: ClassVar[Mapping[str, str]] = {
        "action_encoder_weight": "action.action_encoder.weight",
        "action_head_weight": "action.head.linear.weight",
        "cls_token": "video.txt_in.cls_token",
        "img_in_weight": "video.img_in.weight",
        "proprio_weight": "proprio_encoder.weight",
    }

    def empty_network(self) -> OvisU1Network:
        """See `reference.Reference`."""
        c = self.config
        config = OvisU1Config(
            hidden=c["hidden"],
            heads=c["heads"],
            axes=tuple(c["axes"]),
            theta=float(c["theta"]),
            double=c["double"],
            single=c["single"],
            mlp_ratio=c["mlp_ratio"],
            qkv_bias=c["qkv_bias"],
            channels=c["in_channels"],
            text_dim=c["text_dim"],
            action_dim=c["action_dim"],
            proprio_dim=c["proprio_dim"],
            action_mlp_ratio=c["action"]["mlp_ratio"],
            max_horizon=c["action"]["max_action_horizon"],
        )
        with torch.device("meta"):
            return self.network_class(config)

    def build_codec(self) -> KlCodec:
        """See `reference.Reference`."""
        state = read_tensors(self.directory / "vae.safetensors")
        return self.codec_class(kl_autoencoder(self.config["vae"], state))

    def rules(self) -> list[Rule]:
        """See `reference.Reference`."""
        return [
            *super().rules(),
            Rule(r"action_ids", self.action_ids, EXACT),
            Rule(r"prefix_(double_joint|double_image|single)_(k|v)", self.prefix, CLOSE),
            Rule(r"prefix_txt_tokens", lambda: self.embedded.text, CLOSE),
            Rule(r"prefix_img_tokens", lambda: self.embedded.image, CLOSE),
            Rule(r"prefix_vec", lambda: self.vector(self.embedded, torch.zeros(1, device=self.device)), CLOSE),
            Rule(r"joint_context", lambda: self.joint_embedded.text, CLOSE),
            Rule(r"joint_vec", lambda: self.vector(self.joint_embedded, self.batch.target_timestep), CLOSE),
        ]

    @property
    def embedded(self) -> OvisPrefix:
        """Prefix of the first sample before the blocks."""
        prefix: OvisPrefix = self.network.embed(self.latents, self.packed(self.context))
        return prefix

    @property
    def joint_embedded(self) -> OvisPrefix:
        """Prefix of the training forward before the blocks."""
        batch = self.batch
        packed: Context = self.network.pack(batch.context, self.network.proprio_encoder(batch.proprio))
        prefix: OvisPrefix = self.network.embed(batch.reference, packed)
        return prefix

    def vector(self, prefix: OvisPrefix, timestep: Tensor | None) -> Tensor:
        """Conditioning vector."""
        vector: Tensor = self.network.video.vector(timestep, prefix.summary)
        return vector

    def action_ids(self) -> Tensor:
        """Positions of the actions, (1, T, 3)."""
        ids: Tensor = self.network.action_ids(self.horizon, self.device)[None]
        return ids

    def prefix(self, group: str, which: str) -> Tensor:
        """Keys or values, (layers, B, N, H*d)."""
        cache: Any = self.cache
        part = cache.image if group == "double_image" else cache.joint
        buffer = part.keys if which == "k" else part.values
        flat = buffer[:, :, :, : part.prefix_length].transpose(2, 3).flatten(3)
        double = self.network.config.double
        return flat[double:] if group == "single" else flat[:double]


def kl_autoencoder(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> AutoencoderKL:
    """Build a diffusers AutoencoderKL from its numbers and weights under any prefix."""
    levels = len(config["block_out_channels"])
    module: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        **{key: config[key] for key in VAE_KEYS},
    )
    module.load_state_dict({name.removeprefix("visual_generator.vae."): tensor for name, tensor in state.items()})
    return module
