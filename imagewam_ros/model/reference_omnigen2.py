# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="no-any-return"
"""Reference directories of OmniGen2."""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from imagewam_ros.model.autoencoder import KlCodec
from imagewam_ros.model.mot import KeyValueCache
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.omnigen2_network import OmniGen2Network, OmniPrefix
from imagewam_ros.model.reference import CLOSE, EXACT, Reference, Rule, read_tensors
from imagewam_ros.model.reference_ovis_u1 import kl_autoencoder

OTHER = "altpack_"
"""Prefix of results with the proprio token at its other place."""

LARGE_ANGLES = 2e-2
"""Tolerance of what depends on sines of angles up to a million radians, on other hardware than the reference's."""


class OmniGen2Reference(Reference):
    """See `reference.Reference`."""

    network_class: ClassVar[type[OmniGen2Network]] = OmniGen2Network
    codec_class: ClassVar[type[KlCodec]] = KlCodec
    gradients: ClassVar[Mapping[str, str]] = {
        "action_encoder_weight": "action.action_encoder.weight",
        "action_head_weight": "action.head.linear_2.weight",
        "image_index_embedding": "video.image_index_embedding",
        "proprio_weight": "proprio_encoder.weight",
        "ref_image_patch_embedder_weight": "video.ref_image_patch_embedder.weight",
        "x_embedder_weight": "video.x_embedder.weight",
    }

    def empty_network(self) -> OmniGen2Network:
        """See `reference.Reference`."""
        c, action = self.config, self.config["action"]
        if self.other_hardware and c["timestep_scale"] > 1:
            self.video_tolerance = LARGE_ANGLES
        config = OmniGen2Config(
            hidden=c["hidden"],
            heads=c["heads"],
            kv_heads=c["kv_heads"],
            axes=tuple(c["axes"]),
            axes_lengths=tuple(c["axes_lens"]),
            theta=float(c["rope_theta"]),
            layers=c["layers"],
            refiner_layers=c["refiner_layers"],
            multiple_of=c["multiple_of"],
            norm_eps=c["norm_eps"],
            timestep_scale=c["timestep_scale"],
            channels=c["in_channels"],
            patch=c["patch_size"],
            text_dim=c["text_dim"],
            action_dim=c["action_dim"],
            proprio_dim=c["proprio_dim"],
            action_hidden=action["residual_dim"],
            action_multiple_of=action["multiple_of"],
            action_norm_eps=action["norm_eps"],
            action_timestep_scale=action["timestep_scale"],
            action_theta=action["rope_theta"],
            max_horizon=action["max_action_horizon"],
            pack_after_text=c["pack"],
        )
        with torch.device("meta"):
            return self.network_class(config)

    def build_codec(self) -> KlCodec:
        """See `reference.Reference`."""
        state = read_tensors(self.directory / "vae.safetensors")
        return self.codec_class(kl_autoencoder(self.config["vae"], state))

    def rules(self) -> list[Rule]:
        """See `reference.Reference`."""
        rules = [
            *super().rules(),
            Rule(r"ref_patches", lambda: self.network.patches(self.latents)[1], CLOSE),
            Rule(r"prefix_(k|v)", self.prefix, CLOSE),
            Rule(r"prefix_position_ids", lambda: self.kept(self.embedded, self.embedded.ids), EXACT),
            Rule(r"prefix_rope_(cos|sin)", self.rope, CLOSE),
            Rule(r"prefix_temb", lambda: self.network.prefix_modulation(self.zero).vector, CLOSE),
            Rule(r"prefix_text_len", lambda: self.embedded.lengths, EXACT),
            Rule(r"prefix_tokens", lambda: self.kept(self.embedded, self.embedded.tokens), CLOSE),
            Rule(r"joint_temb", self.joint_vector, self.video_tolerance),
            Rule(r"joint_text_lens", lambda: self.joint_prefix.lengths, EXACT),
            Rule(r"joint_seq_lens", lambda: self.joint_prefix.lengths + 2 * self.image_tokens, EXACT),
            Rule(r"joint_tokens", self.joint_tokens, self.video_tolerance),
        ]
        if any(name.startswith(OTHER) for name in self.expected) and not isinstance(self, OtherPacking):
            rules += [Rule(OTHER + rule.pattern, rule.compute, rule.tolerance) for rule in OtherPacking(self).rules()]
        return rules

    def stored(self, latents: Tensor) -> Tensor:
        """See `reference.Reference`."""
        return latents

    def latents_from(self, stored: Tensor) -> Tensor:
        """See `reference.Reference`."""
        return stored

    @property
    def zero(self) -> Tensor:
        """Time of the prefix, (1,)."""
        return torch.zeros(1, device=self.device)

    @property
    def image_tokens(self) -> int:
        """Tokens of one image."""
        return self.network.patches(self.latents)[1].shape[1]

    @cached_property
    def embedded(self) -> OmniPrefix:
        """Refined prefix of the first sample."""
        with torch.no_grad():
            modulation = self.network.prefix_modulation(self.zero)
            return self.network.embed(self.latents, self.packed(self.context), modulation)

    def kept(self, prefix: OmniPrefix, values: Tensor) -> Tensor:
        """Rows (1, N, ...) of the compact sequence of the first sample."""
        return values[:, prefix.mask[0]] if prefix.mask is not None else values

    def prefix(self, which: str) -> Tensor:
        """Keys or values of the compact prefix, (layers, 1, N, Hkv*d)."""
        cache = self.cache
        assert isinstance(cache, KeyValueCache)
        buffer = cache.keys if which == "k" else cache.values
        rows = buffer[:, :, :, : cache.prefix_length].transpose(2, 3).flatten(3)
        mask = self.embedded.mask
        return rows if mask is None else rows[:, :, mask[0]]

    def rope(self, which: str) -> Tensor:
        """Rotary factors of the compact prefix, one per pair."""
        table = self.network.table(self.kept(self.embedded, self.embedded.ids))
        return (table.real if which == "cos" else table.imag)[:, 0]

    def joint_vector(self) -> Tensor:
        """Time vector of the training forward."""
        return self.network.prefix_modulation(self.batch.target_timestep).vector

    @cached_property
    def joint_prefix(self) -> OmniPrefix:
        """Refined prefix of the training forward."""
        batch = self.batch
        packed = self.network.pack(batch.context, self.network.proprio_encoder(batch.proprio))
        return self.network.embed(batch.reference, packed, self.network.prefix_modulation(batch.target_timestep))

    def joint_tokens(self) -> Tensor:
        """Compact sequences [text, reference, target], zeros behind the shorter one."""
        prefix = self.joint_prefix
        noised, _ = self.network.noised_target(self.batch)
        target, _ = self.network.target_tokens(noised, self.joint_vector(), prefix.lengths)
        mask = prefix.tokens.new_ones(prefix.tokens.shape[:2], dtype=torch.bool) if prefix.mask is None else prefix.mask
        rows = [torch.cat([tokens[valid], own]) for tokens, valid, own in zip(prefix.tokens, mask, target, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


class OtherPacking(OmniGen2Reference):
    """The same weights and inputs, pack_after_text inverted."""

    def __init__(self, origin: OmniGen2Reference) -> None:
        self.directory, self.config = origin.directory, {**origin.config, "pack": not origin.config["pack"]}
        self.device, self.dtype, self.other_hardware = origin.device, origin.dtype, origin.other_hardware
        self.expected, self.codec = origin.expected, origin.codec
        self.network = self.build_network().eval().to(self.device, self.dtype)
