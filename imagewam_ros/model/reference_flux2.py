# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="no-any-return"
"""Reference directories of FLUX.2."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor

from imagewam_ros.core.contract import Denoising
from imagewam_ros.model import flow
from imagewam_ros.model.autoencoder import Flux2Codec
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.flux2_network import Flux2Network
from imagewam_ros.model.mot import KeyValueCache
from imagewam_ros.model.naming import autoencoder_to_diffusers
from imagewam_ros.model.reference import ACTIONS, CLOSE, EXACT, Reference, Rule, read_tensors

BFLOAT16_SPREAD = 1.5
"""How much farther than the stored pair a bfloat16 result may be from float32 on the same schedule."""


class Flux2Reference(Reference):
    """See `reference.Reference`."""

    network_class: ClassVar[type[Flux2Network]] = Flux2Network
    gradients: ClassVar[Mapping[str, str]] = {
        "action_encoder_weight": "action.action_encoder.weight",
        "action_head_weight": "action.head.linear.weight",
        "action_linear1_weight": "action.single_blocks.0.linear1.weight",
        "img_in_weight": "video.img_in.weight",
        "double_img_qkv_weight": "video.double_blocks.0.img_attn.qkv.weight",
        "single_modulation_weight": "video.single_stream_modulation.lin.weight",
        "proprio_weight": "proprio_encoder.weight",
    }

    def empty_network(self) -> Flux2Network:
        """See `reference.Reference`."""
        c = self.config
        config = Flux2Config(
            hidden=c["hidden"],
            heads=c["heads"],
            axes=tuple(c["axes"]),
            double=c["double"],
            single=c["single"],
            channels=4 * c["vae"]["z_channels"],
            text_dim=c["text_dim"],
            action_dim=c["action_dim"],
            proprio_dim=c["proprio_dim"],
            action_hidden=c["action_hidden"],
            action_mlp_ratio=c["action_mlp_ratio"],
            max_horizon=c["max_horizon"],
        )
        with torch.device("meta"):
            return self.network_class(config)

    def build_codec(self) -> Flux2Codec:
        """See `reference.Reference`."""
        vae = self.config["vae"]
        module: Any = AutoencoderKLFlux2(
            block_out_channels=tuple(vae["ch"] * factor for factor in vae["ch_mult"]),
            layers_per_block=vae["num_res_blocks"],
            latent_channels=vae["z_channels"],
        )
        module.load_state_dict(autoencoder_to_diffusers(read_tensors(self.directory / "ae.safetensors")))
        return Flux2Codec(module)

    def rules(self) -> list[Rule]:
        """See `reference.Reference`."""
        return [
            *super().rules(),
            Rule(r"prefix_(k|v)", self.prefix, CLOSE),
            Rule(r"(timesteps|deltas)(\d+)_bf16", self.rounded_schedule, EXACT),
            Rule(r"actions_steps(\d+)_bf16grid_fp32", self.actions_on_rounded_times, ACTIONS),
            Rule(r"actions_steps(\d+)_bf16", self.actions_in_bfloat16, BFLOAT16_SPREAD),
        ]

    def prefix(self, which: str) -> Tensor:
        """Keys or values of all layers, (layers, B, N, H*d)."""
        cache = self.cache
        assert isinstance(cache, KeyValueCache)
        buffer = cache.keys if which == "k" else cache.values
        return buffer[:, :, :, : cache.prefix_length].transpose(2, 3).flatten(3)

    def rounded_schedule(self, kind: str, steps: str) -> Tensor:
        """The schedule as released models use it."""
        tensor: Tensor = getattr(flow.schedule(int(steps), time_grid="bfloat16"), kind)
        return tensor

    def actions_on_rounded_times(self, steps: str) -> Tensor:
        """Float32 arithmetic on the rounded schedule."""
        plan = self.network.plan(Denoising(int(steps), time_grid="bfloat16"))
        return self.network.denoise(self.start, self.cache, plan)

    def actions_in_bfloat16(self, steps: str) -> Tensor:
        """Everything in bfloat16."""
        network = deepcopy(self.network).bfloat16()
        codec = Flux2Codec(deepcopy(self.codec.autoencoder).bfloat16())
        e = self.expected
        with torch.no_grad():
            latents = codec.encode(e["image"].bfloat16())
            cache = network.prefill(latents, self.context, e["proprio"].bfloat16(), self.horizon)
        return network.denoise(self.start, cache, network.plan(Denoising(int(steps), time_grid="bfloat16")))
