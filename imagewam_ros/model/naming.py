# SPDX-License-Identifier: Apache-2.0
"""Other names for the same weights: diffusers' transformer and the original autoencoder's.

Source: docs/model.md, section 7.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from imagewam_ros.model.safetensors_stream import Lazy

AUTOENCODER_RULES = (
    (r"^encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"^encoder\.down\.(\d+)\.downsample\.conv\.", r"encoder.down_blocks.\1.downsamplers.0.conv."),
    (r"^decoder\.up\.(\d+)\.block\.(\d+)\.", r"decoder.up_blocks.\1.resnets.\2."),
    (r"^decoder\.up\.(\d+)\.upsample\.conv\.", r"decoder.up_blocks.\1.upsamplers.0.conv."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
    (r"^encoder\.quant_conv\.", "quant_conv."),
    (r"^decoder\.post_quant_conv\.", "post_quant_conv."),
)
"""Original autoencoder name to diffusers' (FLUX.2's `ae.safetensors`)."""


def autoencoder_to_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an original autoencoder's tensors; its 1x1 attention convolutions become linear."""
    levels = 1 + max((int(m[1]) for name in state if (m := re.match(r"decoder\.up\.(\d+)\.", name))), default=-1)
    result = {}
    for name, tensor in state.items():
        renamed = name
        for pattern, replacement in AUTOENCODER_RULES:
            renamed = re.sub(pattern, replacement, renamed)
        if ".mid.attn_1." in name and tensor.ndim == 4:
            tensor = tensor.flatten(1)
        # the original counts the decoder's levels from the image, diffusers from the latent
        renamed = re.sub(r"up_blocks\.(\d+)", lambda m: f"up_blocks.{levels - 1 - int(m[1])}", renamed)
        result[renamed] = tensor
    return result


FLUX2_RULES = (
    (r"^img_in\.", "x_embedder."),
    (r"^txt_in\.", "context_embedder."),
    (r"^time_in\.in_layer\.", "time_guidance_embed.timestep_embedder.linear_1."),
    (r"^time_in\.out_layer\.", "time_guidance_embed.timestep_embedder.linear_2."),
    (r"^(\w+_stream_modulation\w*)\.lin\.", r"\1.linear."),
    (r"^double_blocks\.(\d+)\.img_attn\.proj\.", r"transformer_blocks.\1.attn.to_out.0."),
    (r"^double_blocks\.(\d+)\.txt_attn\.proj\.", r"transformer_blocks.\1.attn.to_add_out."),
    (r"^double_blocks\.(\d+)\.img_attn\.norm\.query_norm\.scale", r"transformer_blocks.\1.attn.norm_q.weight"),
    (r"^double_blocks\.(\d+)\.img_attn\.norm\.key_norm\.scale", r"transformer_blocks.\1.attn.norm_k.weight"),
    (r"^double_blocks\.(\d+)\.txt_attn\.norm\.query_norm\.scale", r"transformer_blocks.\1.attn.norm_added_q.weight"),
    (r"^double_blocks\.(\d+)\.txt_attn\.norm\.key_norm\.scale", r"transformer_blocks.\1.attn.norm_added_k.weight"),
    (r"^double_blocks\.(\d+)\.img_mlp\.0\.", r"transformer_blocks.\1.ff.linear_in."),
    (r"^double_blocks\.(\d+)\.img_mlp\.2\.", r"transformer_blocks.\1.ff.linear_out."),
    (r"^double_blocks\.(\d+)\.txt_mlp\.0\.", r"transformer_blocks.\1.ff_context.linear_in."),
    (r"^double_blocks\.(\d+)\.txt_mlp\.2\.", r"transformer_blocks.\1.ff_context.linear_out."),
    (r"^single_blocks\.(\d+)\.linear1\.", r"single_transformer_blocks.\1.attn.to_qkv_mlp_proj."),
    (r"^single_blocks\.(\d+)\.linear2\.", r"single_transformer_blocks.\1.attn.to_out."),
    (r"^single_blocks\.(\d+)\.norm\.query_norm\.scale", r"single_transformer_blocks.\1.attn.norm_q.weight"),
    (r"^single_blocks\.(\d+)\.norm\.key_norm\.scale", r"single_transformer_blocks.\1.attn.norm_k.weight"),
    (r"^final_layer\.linear\.", "proj_out."),
    (r"^final_layer\.adaLN_modulation\.1\.", "norm_out.linear."),
)
"""FLUX.2 name to diffusers' (Flux2Transformer2DModel)."""

FUSED = {"img_attn": ("to_q", "to_k", "to_v"), "txt_attn": ("add_q_proj", "add_k_proj", "add_v_proj")}
"""Fused projections of a double block and the three that diffusers has instead."""

SWAPPED = "final_layer.adaLN_modulation.1."
"""Halves (shift, scale) that diffusers stores the other way round."""


def flux2_from_diffusers(state: Mapping[str, Lazy], names: Sequence[str]) -> dict[str, Lazy]:
    """Return the tensors of a diffusers FLUX.2 transformer under the original `names`, fused when they are made.

    What has no counterpart keeps its name, so that an audit can tell.
    """
    left, result = dict(state), {}
    for name in names:
        sources = diffusers_names(name)
        if all(source in left for source in sources):
            parts = [left.pop(source) for source in sources]
            shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
            result[name] = Lazy(shape, parts[0].dtype, partial(_joined, parts, swapped=name.startswith(SWAPPED)))
    return result | left


def _joined(parts: Sequence[Lazy], *, swapped: bool) -> Tensor:
    whole = torch.cat([part.make() for part in parts]) if len(parts) > 1 else parts[0].make()
    return torch.cat(whole.chunk(2)[::-1]) if swapped else whole


def diffusers_names(name: str) -> tuple[str, ...]:
    """Where diffusers keeps the tensor that FLUX.2 calls `name`; three for a fused projection."""
    fused = re.match(r"^double_blocks\.(\d+)\.(img_attn|txt_attn)\.qkv\.(\w+)$", name)
    if fused:
        return tuple(f"transformer_blocks.{fused[1]}.attn.{part}.{fused[3]}" for part in FUSED[fused[2]])
    for pattern, replacement in FLUX2_RULES:
        name = re.sub(pattern, replacement, name)
    return (name,)
