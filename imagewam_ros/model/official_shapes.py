# SPDX-License-Identifier: Apache-2.0
"""Read a network's variant and numbers off the shapes of its weights."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.ovis_u1 import OvisU1Config

Shapes = Mapping[str, tuple[int, ...]]

MULTIPLES = (256, 128, 64, 32, 16, 8, 4, 2, 1)


def variant_of(shapes: Shapes) -> str:
    """Name the backbone. Raises CheckpointError when none is recognised."""
    marks = {
        "flux2": "video.double_stream_modulation_img.lin.weight",
        "ovis_u1": "video.double_blocks.0.img_self_attn.qkv.weight",
        "omnigen2": "video.context_refiner.0.attn.to_q.weight",
    }
    for variant, mark in marks.items():
        if mark in shapes:
            return variant
    raise CheckpointError(f"no backbone recognised among {len(shapes)} tensors; known: {', '.join(marks)}")


def config_of(shapes: Shapes) -> Any:
    """Numbers of the network. Raises CheckpointError where a tensor that tells is missing or impossible."""
    readers: dict[str, Callable[[Shapes], Any]] = {"flux2": _flux2, "ovis_u1": _ovis_u1, "omnigen2": _omnigen2}
    variant, asked = variant_of(shapes), _Asked(shapes)
    try:
        return readers[variant](asked)
    except KeyError as error:
        raise CheckpointError(f"the checkpoint lacks {error}, without which its size is unknown") from None
    except (ValueError, IndexError, ZeroDivisionError, StopIteration):
        raise CheckpointError(
            f"{asked.last} is {list(shapes[asked.last])}, which fits no size of {variant}; is the file spoilt or of "
            "another variant? Download it again"
        ) from None


class _Asked(dict[str, tuple[int, ...]]):
    """Shapes that remember which was asked for last."""

    last = ""

    def __getitem__(self, name: str) -> tuple[int, ...]:
        self.last = name
        return super().__getitem__(name)


def _flux2(s: Shapes) -> Flux2Config:
    hidden, channels = s["video.img_in.weight"]
    width, action_dim = s["action.action_encoder.weight"]
    head = s["video.single_blocks.0.norm.query_norm.scale"][0]
    return Flux2Config(
        hidden=hidden,
        heads=hidden // head,
        axes=(head // 4,) * 4,
        double=_count(s, "video.double_blocks"),
        single=_count(s, "video.single_blocks"),
        mlp_ratio=s["video.double_blocks.0.img_mlp.2.weight"][1] / hidden,
        channels=channels,
        text_dim=s["video.txt_in.weight"][1],
        action_dim=action_dim,
        proprio_dim=s["proprio_encoder.weight"][1],
        action_hidden=width,
        action_mlp_ratio=s["action.double_blocks.0.img_mlp.2.weight"][1] / width,
    )


def _ovis_u1(s: Shapes) -> OvisU1Config:
    hidden, channels = s["video.img_in.weight"]
    head = s["video.single_blocks.0.norm.query_norm.scale"][0]
    return OvisU1Config(
        hidden=hidden,
        heads=hidden // head,
        axes=(head // 8, head * 7 // 16, head * 7 // 16) if head % 32 == 0 else (head // 3,) * 3,
        double=_count(s, "video.double_blocks"),
        single=_count(s, "video.single_blocks"),
        mlp_ratio=s["video.double_blocks.0.img_mlp.2.weight"][1] / hidden,
        qkv_bias="video.double_blocks.0.img_attn.qkv.bias" in s,
        channels=channels,
        text_dim=s["video.txt_in.input_embedder.weight"][1],
        action_dim=s["action.action_encoder.weight"][1],
        proprio_dim=s["proprio_encoder.weight"][1],
        action_mlp_ratio=s["action.double_blocks.0.img_mlp.2.weight"][1] / hidden,
    )


def _omnigen2(s: Shapes) -> OmniGen2Config:
    hidden = s["video.x_embedder.weight"][0]
    width, action_dim = s["action.action_encoder.weight"]
    head = s["video.layers.0.attn.norm_q.weight"][0]
    return OmniGen2Config(
        hidden=hidden,
        heads=hidden // head,
        kv_heads=s["video.layers.0.attn.to_k.weight"][0] // head,
        axes=(head // 3,) * 3,
        layers=_count(s, "video.layers"),
        refiner_layers=_count(s, "video.context_refiner"),
        multiple_of=_multiple(hidden, s["video.layers.0.feed_forward.linear_1.weight"][0]),
        channels=s["video.x_embedder.weight"][1] // 4,
        text_dim=s["video.time_caption_embed.caption_embedder.0.weight"][0],
        action_dim=action_dim,
        proprio_dim=s["proprio_encoder.weight"][1],
        action_hidden=width,
        action_multiple_of=_multiple(width, s["action.blocks.0.feed_forward.linear_1.weight"][0]),
    )


def _count(shapes: Shapes, prefix: str) -> int:
    """Number of blocks under a prefix; their names need not be numbered without a gap for that."""
    found = (re.match(re.escape(prefix) + r"\.(\d+)\.", name) for name in shapes)
    return len({match[1] for match in found if match})


def _multiple(width: int, inner: int) -> int:
    """What 4 * width was rounded up to a multiple of."""
    return next(multiple for multiple in MULTIPLES if -(-4 * width // multiple) * multiple == inner)
