# SPDX-License-Identifier: Apache-2.0
"""Weights at lower precision, by name and never silently: what they change is measured and said at load.

Quantised are the layers that tokens run through; embeddings, modulation, heads and norms keep their
precision. torchao does it, an optional package (requirements/quantised.txt).
"""

import logging
import re
from copy import deepcopy
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.model.mot import buffers_of
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.wam import ImageWam

Network = TypeVar("Network", bound=ImageWamNetwork)

WEIGHTS = {
    "full": None,
    "int8_weight_only": "Int8WeightOnlyConfig",
    "fp8_weight_only": "Float8WeightOnlyConfig",
    "fp8_dynamic": "Float8DynamicActivationFloat8WeightConfig",
}
"""Names and torchao's configurations; fp8_dynamic also rounds what is multiplied, in every call."""

FP8_CAPABILITY = (8, 9)
"""First CUDA capability that multiplies in fp8 (Source: torchao)."""

TOKEN_LAYERS = re.compile(r"\.(\w*attn|\w*mlp|feed_forward|self_attn_\w+|linear[12])(\.|$)")
"""Names of the layers that tokens run through, in all three backbones."""

TIMES = (1000.0, 500.0)
"""Timesteps whose velocities are compared."""


class Drift(NamedTuple):
    """One compared tensor: largest difference, rms of the difference over rms of the tensor, cosine."""

    name: str
    max_abs: float
    relative: float
    cosine: float


def check_weights(name: str, device: torch.device) -> None:
    """Raise ConfigError unless weights called `name` can be had on `device`."""
    if name not in WEIGHTS:
        raise ConfigError(unknown_name("weights", name, WEIGHTS))
    if name == "full":
        return
    if name == "fp8_dynamic":
        if device.type != "cuda":
            raise ConfigError(f"weights {name!r} need a CUDA device, found {device.type}; use int8_weight_only or full")
        found = torch.cuda.get_device_capability(device)
        if found < FP8_CAPABILITY:
            raise ConfigError(
                f"weights {name!r} need CUDA capability 8.9 or more, found {found[0]}.{found[1]}; "
                "use int8_weight_only or full"
            )
    try:
        import torchao  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"weights {name!r} need torchao ({error}); pip install -r requirements/quantised.txt, or use weights full"
        ) from error


def quantised(network: Network, name: str) -> Network:
    """Return a copy with weights called `name` that shares all others; the given network itself for "full".

    Raises ConfigError where this machine cannot have them.
    """
    device = network.proprio_encoder.weight.device
    check_weights(name, device)
    if name == "full":
        return network
    from torchao import quantization

    memo: dict[int, Any] = {id(part): part for part in (*network.parameters(), *network.buffers())}
    copy = deepcopy(network, memo)
    try:
        quantization.quantize_(copy, getattr(quantization, str(WEIGHTS[name]))(), is_token_layer)
    except (torch.OutOfMemoryError, RuntimeError, NotImplementedError, AssertionError) as error:
        raise ConfigError(f"weights {name!r} cannot be made on {device} ({error}); use another name or full") from error
    return copy


def is_token_layer(module: nn.Module, name: str) -> bool:
    """Tell whether a module is a linear layer that tokens run through."""
    return isinstance(module, nn.Linear) and TOKEN_LAYERS.search(name) is not None


@torch.no_grad()
def quantise(model: ImageWam, contract: Contract, name: str) -> str:
    """Give the model weights called `name`. Returns, and logs as a warning, the table of what that changes.

    Both are compared on one seeded observation. Raises ConfigError where this machine cannot have such weights.
    """
    wanted, before = answers(model, contract), nbytes(model.network)
    model.network = quantised(model.network, name)
    try:
        found = answers(model, contract)
    except (torch.OutOfMemoryError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            f"weights {name!r} do not run on {model.device} ({error}); use another name or full"
        ) from error
    text = table(name, [drift(key, found[key], wanted[key]) for key in wanted], before, nbytes(model.network))
    logging.getLogger(__name__).warning("%s", text)
    return text


def answers(model: ImageWam, contract: Contract) -> dict[str, Tensor]:
    """What the model makes of one seeded observation: prefix keys and values, velocities, actions."""
    generator = torch.Generator("cpu").manual_seed(0)
    coarse = torch.rand(1, 3, contract.mosaic.height // 16, contract.mosaic.width // 16, generator=generator)
    pixels = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3) * 2 - 1
    states = model.network.config.proprio_dim - len(model.network.config.padded_dims)
    proprio = torch.randn(1, states, generator=generator).clamp(-1, 1)
    plan, noise = model.plan(contract.denoising), model.noise(0)
    instruction = model.encode_instruction("pick it up")
    cache = model.prefill(pixels.to(model.device), proprio.to(model.device), instruction, plan)
    prefix = torch.cat([buffer[:, :, :, : cache.prefix_length].flatten() for buffer in buffers_of(cache)])
    found = {"prefix cache": prefix}
    for time in TIMES:
        found[f"velocity at {time:g}"] = model.velocity(noise, torch.tensor([time], device=model.device), cache)
    return found | {f"actions, {contract.denoising.steps} steps": model.denoise(noise, cache, plan)}


def drift(name: str, found: Tensor, wanted: Tensor) -> Drift:
    """Compare two tensors."""
    a, b = found.double().flatten(), wanted.double().flatten()
    relative = (a - b).norm() / b.norm().clamp(min=1e-30)
    cosine = torch.nn.functional.cosine_similarity(a, b, 0)
    return Drift(name, float((a - b).abs().max()), float(relative), float(cosine))


def nbytes(module: nn.Module) -> int:
    """Bytes of the parameters, quantised ones as they are stored."""
    return sum(_nbytes(parameter) for parameter in module.parameters())


def _nbytes(tensor: Tensor) -> int:
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.nbytes
    inner, _ = tensor.__tensor_flatten__()
    return sum(_nbytes(getattr(tensor, name)) for name in inner)


def table(name: str, rows: list[Drift], before: int, after: int) -> str:
    """Return the differences for a person."""
    lines = [f"weights {name}: {before / 1e6:.1f} MB became {after / 1e6:.1f} MB; against full precision:"]
    lines.append(f"{'tensor':22} {'max abs':>10} {'relative':>10} {'cosine':>10}")
    lines += [f"{row.name:22} {row.max_abs:10.2e} {row.relative:10.2e} {row.cosine:10.6f}" for row in rows]
    return "\n".join(lines)
