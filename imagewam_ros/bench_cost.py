# SPDX-License-Identifier: Apache-2.0
"""`imagewam bench cost`: what one chunk costs at real sizes, counted on the meta device.

Counted is our path per chunk: image encoding, the editing forward over valid tokens, ten steps
of the action expert (Ovis-U1 also its condition encoder, which sees the image). The instruction
is encoded once and not part of a chunk; in the authors' order of work it is. FLOPs are 2 per
multiply-add, by torch's counter; operations are non-view kernel calls before compilation; bytes are
weights read plus the action loop's reads of cached keys and values, both in bfloat16.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

from imagewam_ros.bench_reference.costs import reference_cost, total
from imagewam_ros.bench_reference.count import Cost, Counter
from imagewam_ros.bench_reference.sizes import Layout
from imagewam_ros.core.contract import Denoising, Mosaic, Tile
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.model import factory, layouts
from imagewam_ros.model.autoencoder import Flux2Codec, KlCodec, PackedKlCodec
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.from_backbone import BACKBONES
from imagewam_ros.model.mot import buffers_of
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.ovis_condition import OvisCondition
from imagewam_ros.model.ovis_u1 import OvisU1Config
from imagewam_ros.model.ovis_vision import VisionConfig
from imagewam_ros.model.protocol import Context

TEXT_TOKENS, HORIZON, AUTHORS_STEPS = 24, 16, 10
"""Valid tokens of a prompt, rows of a chunk and steps, as in the reference counts."""

PRESETS = {"flux2-4b": "4b", "flux2-9b": "9b"}
"""Models whose authors' order of work is counted too; FLUX.2 encodes a prompt padded to 512 tokens at every chunk."""

PAPER = (
    "The paper gives 63.65 TF (FastWAM-IDM, decodes video), 13.21 TF (FastWAM, one video step) and 9.72 TF (ImageWAM, "
    "one target-image step), each with three action steps; it does not say whether text or image encoding is counted, "
    "so those figures and these are not the same account."
)


@dataclass(frozen=True)
class ChunkCost:
    """A chunk of one model and layout."""

    model: str
    layout: str
    tokens: int
    parameters: int
    cache_bytes: int
    phases: Mapping[str, Cost]
    reference: Mapping[str, Cost]
    """The same chunk in the authors' order of work, by phase; empty where that is not counted."""

    @property
    def total(self) -> Cost:
        """All phases together."""
        return sum(self.phases.values(), Cost())


class Model(NamedTuple):
    """Network, image codec, width of the text features, and Ovis-U1's condition encoder."""

    network: Any
    codec: Any
    text_dim: int
    condition: Any = None


def chunk_cost(model: str, layout: str, steps: int = AUTHORS_STEPS) -> ChunkCost:
    """Count one chunk. Raises ConfigError for an unknown model or layout."""
    if model not in MODELS:
        raise ConfigError(unknown_name("model", model, MODELS))
    if layout not in layouts.LAYOUTS:
        raise ConfigError(unknown_name("layout", layout, layouts.LAYOUTS))
    with torch.device("meta"), torch.no_grad():
        built = MODELS[model]()
        network = built.network.bfloat16()
        height, width, _ = layouts.LAYOUTS[layout]
        image = torch.zeros(1, 3, height, width, dtype=torch.bfloat16)
        proprio = torch.zeros(1, network.config.proprio_dim, dtype=torch.bfloat16)
        context = Context(torch.zeros(1, TEXT_TOKENS, built.text_dim, dtype=torch.bfloat16))
        phases: dict[str, Cost] = {}
        if built.condition is not None:
            ids = torch.zeros(1, TEXT_TOKENS, dtype=torch.long)
            work = partial(_condition, built.condition, ids, image)
            context, phases["condition"] = Counter([built.condition]).cost(work)
        plan = network.plan(Denoising(steps))
        latents, phases["image"] = Counter([built.codec.autoencoder]).cost(lambda: built.codec.encode(image))
        counter = Counter([network])
        cache, phases["editing forward"] = counter.cost(
            lambda: network.prefill(latents, context, proprio, HORIZON, plan)
        )
        counter.watch(buffers_of(cache))
        noise = torch.zeros(1, HORIZON, network.config.action_dim)
        _, phases["action loop"] = counter.cost(lambda: network.denoise(noise, cache, plan))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    theirs = _reference(model, height, width, network.config) if model in PRESETS and steps == AUTHORS_STEPS else {}
    return ChunkCost(model, layout, cache.prefix_length, parameters, cache.nbytes, phases, theirs)


def _reference(model: str, height: int, width: int, config: Any) -> Mapping[str, Cost]:
    whole = Mosaic(height, width, (Tile("head", 0, 0, height, width),))  # the count does not depend on tiles
    return reference_cost(PRESETS[model], Layout(whole, config.action_dim, config.proprio_dim))


def _condition(model: OvisCondition, ids: Tensor, image: Tensor) -> Context:
    """The condition encoder's work on shapes alone: the image's place does not matter, nor does what a mask holds."""
    visual = model.visual_tokenizer(image) @ model.vte.weight
    embeds = torch.cat([model.llm.embed_tokens(ids), visual], 1)
    places = torch.arange(embeds.shape[1])[None]
    causal = {"full_attention": None}  # ready-made, so that nobody reads values to find out
    states = model.llm(inputs_embeds=embeds, attention_mask=causal, position_ids=places, use_cache=False)
    return Context(torch.cat([states.last_hidden_state] * 2, -1))


def _flux2(config: Flux2Config) -> Model:
    autoencoder: Any = AutoencoderKLFlux2()
    return Model(_network("flux2", config), Flux2Codec(autoencoder.bfloat16()), config.text_dim)


def _omnigen2() -> Model:
    config = OmniGen2Config()
    return Model(_network("omnigen2", config), KlCodec(_kl(16)), config.text_dim)


def _ovis_u1() -> Model:
    config = OvisU1Config()
    llm = Qwen3Config(
        hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8,
        head_dim=128, vocab_size=151936,
    )  # fmt: skip
    condition = OvisCondition(VisionConfig(), Qwen3Model(llm)).bfloat16()
    return Model(_network("ovis_u1", config), PackedKlCodec(_kl(4)), config.text_dim, condition)


def _kl(channels: int) -> Any:
    autoencoder: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=channels,
    )  # fmt: skip
    return autoencoder.bfloat16()


def _network(variant: str, config: Any) -> Any:
    return factory.build_network(factory.ModelSpec(variant, config, None), "meta").eval()


KLEIN_9B = BACKBONES["flux2_9b"].network

MODELS: dict[str, Callable[[], Model]] = {
    "flux2-4b": lambda: _flux2(Flux2Config()),
    "flux2-9b": lambda: _flux2(KLEIN_9B),
    "omnigen2": _omnigen2,
    "ovis_u1": _ovis_u1,
}
"""Released backbones by name."""


def table(costs: list[ChunkCost]) -> str:
    """Return the counts for a person."""
    columns = f"{'TFLOP':>7} {'GB read':>8} {'calls':>7} {'cache MB':>9}"
    lines = [f"{'model':10} {'layout':16} {'prefix':>6} {columns}"]
    for cost in costs:
        name = f"{cost.model:10} {cost.layout:16} {cost.tokens:6d}"
        lines.append(f"{name} {_numbers(cost.total)} {cost.cache_bytes / 1e6:9.0f}")
        if cost.reference:
            lines.append(f"{'  in the order of the authors':{len(name)}} {_numbers(total(cost.reference))}")
        lines += [
            f"    {name:16} {phase.flops / 1e12:7.3f} TF {phase.operations:6d} calls"
            for name, phase in cost.phases.items()
        ]
    return "\n".join([*lines, PAPER])


def _numbers(cost: Cost) -> str:
    return f"{cost.flops / 1e12:7.2f} {cost.nbytes / 1e9:8.1f} {cost.operations:7d}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--model", nargs="+", default=list(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--layout", nargs="+", default=["compact_288x256"], help=f"of {', '.join(layouts.LAYOUTS)}")
    parser.add_argument("--json", action="store_true", help="print one JSON line instead of the table")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    costs = [chunk_cost(model, layout) for model in args.model for layout in args.layout]
    if args.json:
        rows = [{**asdict(cost), "flops": cost.total.flops, "bytes": cost.total.nbytes} for cost in costs]
        print(json.dumps({"chunks": rows, "text_tokens": TEXT_TOKENS, "horizon": HORIZON, "steps": AUTHORS_STEPS}))
    else:
        print(table(costs))
    return 0
