# SPDX-License-Identifier: Apache-2.0
"""Recompute what a reference directory holds, tensor by tensor, from its names.

A directory has config.json, checkpoint.pt (the authors' layout), the autoencoder's weights and
expected.safetensors with inputs and results. Steps, shift and seed come from the tensors'
names, every size from the configuration. A subclass per variant adds what only it has.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model import flow
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.official import load_official
from imagewam_ros.model.protocol import Context, ImageCodec, JointBatch, JointOutput, PrefixCache

EXACT, CLOSE, ACTIONS, GRADIENTS = 0.0, 1e-5, 1e-6, 2e-5
"""Tolerances: largest difference relative to the tensor's rms. The stored float32 gradients themselves
are up to 2e-5 away from float64 (measured on FLUX.2's)."""

DEFAULT_SHIFT = 5.0


class Rule(NamedTuple):
    """How tensors of a name are recomputed, and how close they must come."""

    pattern: str
    compute: Callable[..., Tensor | None]
    tolerance: float


class Reference:
    """One reference directory with the model built from it. Subclasses set the class attributes.

    Raises CheckpointError when the directory cannot be read.
    """

    inputs: ClassVar[tuple[str, ...]] = (
        r"(target_)?image",
        r"text(_b)?(_mask(_b)?)?",
        r"proprio(_b)?",
        r"joint_(ref_image|target_image|text|text_mask|proprio|action|action_noise|target_noise)",
        r"joint_(t_video|t_action|action_is_pad|action_dim_is_pad)",
    )
    autoencoder_file: ClassVar[str] = "vae.safetensors"
    gradients: ClassVar[Mapping[str, str]] = {}

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = read_config(directory)
        self.expected = read_tensors(directory / "expected.safetensors")
        try:
            self.network = self.build_network().eval()
            self.codec = self.build_codec()
        except KeyError as error:
            raise CheckpointError(
                f"{directory / 'config.json'} lacks {error}; see the layout of the test data"
            ) from None

    def build_network(self) -> ImageWamNetwork:
        """Build the network with the checkpoint's weights."""
        network = self.empty_network()
        load_official(network, self.directory / "checkpoint.pt")
        return network

    def empty_network(self) -> ImageWamNetwork:
        """Build the network on the meta device from `self.config`."""
        raise NotImplementedError

    def build_codec(self) -> ImageCodec:
        """Build the image codec with its weights."""
        raise NotImplementedError

    def rules(self) -> list[Rule]:
        """Return all rules; the first whose pattern matches a whole name counts."""
        return [
            Rule(r"ref_decoded", self.decoded, CLOSE),
            Rule(r"context_with_proprio", lambda: self.packed(self.context).tokens, CLOSE),
            Rule(r"context_with_proprio_mask", lambda: self.packed(self.context).mask, EXACT),
            Rule(r"action_noise_seed(\d+)", self.noise, EXACT),
            Rule(r"actions_steps(\d+)_shift([\d.]+|default)", self.actions, ACTIONS),
            Rule(r"(timesteps|deltas)_steps(\d+)_shift([\d.]+|default)", self.schedule, ACTIONS),
            Rule(r"velocity_(first|last)_steps(\d+)_shift([\d.]+|default)", self.velocity, CLOSE),
            Rule(r"joint_pred_action", lambda: self.joint.action, CLOSE),
            Rule(r"joint_weight_(video|action)", self.weight, CLOSE),
            Rule(r"joint_loss_(video|action|total)", self.loss, CLOSE),
            Rule(r"joint_loss_action_with_dim_pad", self.loss_with_padding, CLOSE),
            Rule(r"grad_(\w+)", self.gradient, GRADIENTS),
        ]

    # --- inference ---

    @cached_property
    def latents(self) -> Tensor:
        """Latents of the image."""
        return self.codec.encode(self.expected["image"])

    def decoded(self) -> Tensor:
        """Pixels of the latents that the directory holds."""
        stored = self.expected.get("ref_tokens", self.expected.get("ref_latents"))
        return self.codec.decode(self.latents if stored is None else self.latents_from(stored))

    @property
    def context(self) -> Context:
        """Padded text with its mask."""
        return Context(self.expected["text"], self.expected["text_mask"].bool())

    def packed(self, context: Context) -> Context:
        """Text with the proprio token."""
        with torch.no_grad():
            return self.network.pack(context, self.network.proprio_encoder(self.expected["proprio"]))

    @cached_property
    def cache(self) -> PrefixCache:
        """Prefix of the first sample, padded text."""
        with torch.no_grad():
            return self.network.prefill(self.latents, self.context, self.expected["proprio"], self.horizon)

    @property
    def horizon(self) -> int:
        """Rows of a chunk."""
        return int(self.config["horizon"])

    def noise(self, seed: str) -> Tensor:
        """Start noise of the actions."""
        return flow.action_noise(int(seed), self.horizon, int(self.config["action_dim"]))

    @property
    def start(self) -> Tensor:
        """The start noise that the results were made from."""
        return next(tensor for name, tensor in self.expected.items() if name.startswith("action_noise_seed"))

    def actions(self, steps: str, shift: str) -> Tensor:
        """Denoise a chunk with the fast path."""
        return self.network.denoise(self.start, self.cache, self.network.plan(_denoising(steps, shift)))

    def schedule(self, kind: str, steps: str, shift: str) -> Tensor:
        """Times or deltas."""
        plan = _denoising(steps, shift)
        tensor: Tensor = getattr(flow.schedule(plan.steps, plan.shift), kind)
        return tensor

    def velocity(self, which: str, steps: str, shift: str) -> Tensor:
        """First or last velocity of the Euler loop, modulation computed at each step."""
        plan = _denoising(steps, shift)
        actions, velocities = self.start, []
        with torch.no_grad():
            for timestep, delta in zip(*flow.schedule(plan.steps, plan.shift), strict=True):
                velocities.append(self.network.velocity(actions, timestep[None], self.cache))
                actions = actions + velocities[-1] * delta
        return velocities[0 if which == "first" else -1]

    # --- training ---

    @cached_property
    def batch(self) -> JointBatch:
        """The training forward's inputs, without padding of action dims."""
        e = self.expected
        return JointBatch(
            reference=self.codec.encode(e["joint_ref_image"]),
            context=Context(e["joint_text"], e["joint_text_mask"].bool()),
            proprio=e["joint_proprio"],
            actions=e["joint_action"],
            action_noise=e["joint_action_noise"],
            action_timestep=e["joint_t_action"],
            target=self.codec.encode(e["joint_target_image"]),
            target_noise=self.latents_from(e["joint_target_noise"]),
            target_timestep=e["joint_t_video"],
            action_is_pad=e["joint_action_is_pad"].bool(),
            prefix_at_zero=False,
        )

    def latents_from(self, tensor: Tensor) -> Tensor:
        """Bring what the directory holds (tokens or latents) to latents."""
        return tensor

    @cached_property
    def joint(self) -> JointOutput:
        """The training forward."""
        return self.network.joint_forward(self.batch)

    def weight(self, which: str) -> Tensor:
        """Weight of each sample's loss."""
        return flow.loss_weight(self.expected[f"joint_t_{which}"])

    def loss(self, which: str) -> Tensor:
        """One loss, (1,)."""
        tensor: Tensor = getattr(flow.losses(self.joint, self.batch), which)
        return tensor.reshape(1)

    def loss_with_padding(self) -> Tensor:
        """Action loss with padded dims as well, (1,)."""
        padded = {**vars(self.batch), "action_dim_is_pad": self.expected["joint_action_dim_is_pad"].bool()}
        return flow.action_loss(self.joint.action, JointBatch(**padded)).reshape(1)

    def gradient(self, name: str) -> Tensor:
        """Gradient of the total loss."""
        if name not in self.gradients:
            raise KeyError(name)
        wanted = [self.network.get_parameter(self.gradients[name])]
        total = flow.losses(self.joint, self.batch).total
        return torch.autograd.grad(total, wanted, retain_graph=True)[0]


def read_config(directory: Path) -> dict[str, Any]:
    """Read config.json. Raises CheckpointError."""
    path = directory / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {path}; expected a reference directory") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(data, dict) or "variant" not in data:
        raise CheckpointError(f"{path} names no variant; expected a reference directory")
    return data


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises CheckpointError."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {path}; expected a reference directory") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}); copy it again") from error


def match(name: str, rules: list[Rule]) -> tuple[Rule, tuple[str, ...]] | None:
    """Return the rule for a tensor's name and what its pattern captured."""
    for rule in rules:
        found = re.fullmatch(rule.pattern, name)
        if found:
            return rule, found.groups()
    return None


def _denoising(steps: str, shift: str) -> Denoising:
    return Denoising(int(steps), DEFAULT_SHIFT if shift == "default" else float(shift))
