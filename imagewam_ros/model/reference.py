# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="no-any-return"
"""Recompute what a reference directory holds, tensor by tensor, from its names.

A directory has config.json, checkpoint.pt (the authors' layout), the autoencoder's weights and
expected.safetensors with inputs and results. Steps, shift and seed come from the tensors'
names, every size from the configuration. A subclass per variant adds what only it has.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
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
from imagewam_ros.model.expert_init import inherited
from imagewam_ros.model.layers import latents_of, tokens_of
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.official import load_official
from imagewam_ros.model.protocol import Context, ImageCodec, JointBatch, JointOutput, PrefixCache

EXACT, CLOSE, ACTIONS = 0.0, 1e-5, 1e-6
"""Tolerances: largest difference relative to the tensor's rms."""

DEFAULT_SHIFT = 5.0


TIMES = ("joint_t_video", "joint_t_action")

PER_SAMPLE = ("actions", "action_noise", "action_timestep", "action_is_pad")


class Rule(NamedTuple):
    """How tensors of a name are recomputed, and how close they must come."""

    pattern: str
    compute: Callable[..., Tensor | None]
    tolerance: float


class Reference:
    """One reference directory with the model built from it. Subclasses set the class attributes.

    float64 is to be used inside `float64.Float64`. other_hardware allows for sines of angles up to a million
    radians, which no two libraries agree on. Raises CheckpointError when the directory cannot be read.
    """

    inputs: ClassVar[tuple[str, ...]] = (
        r"(target_)?image",
        r"text(_b)?(_mask(_b)?)?",
        r"proprio(_b)?",
        r"joint_(ref_image|target_image|text|text_mask|proprio|action|action_noise|target_noise)",
        r"joint_(t_video|t_action|action_is_pad|action_dim_is_pad)",
    )
    autoencoder_file: ClassVar[str] = "vae.safetensors"
    transformer_prefix: ClassVar[str] = ""
    gradients: ClassVar[Mapping[str, str]] = {}
    video_tolerance: float = CLOSE

    def __init__(
        self,
        directory: Path,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        other_hardware: bool = False,
    ) -> None:
        self.directory, self.device, self.dtype = directory, torch.device(device), dtype
        self.other_hardware = other_hardware or device != "cpu"
        self._goals: dict[str, tuple[Tensor, list[Tensor]]] = {}
        self.config = read_config(directory)
        self.expected = self.read_expected()
        self.build()

    def build(self) -> None:
        """Build what is compared, from `self.config` and the weights of the directory. Raises CheckpointError."""
        try:
            self.network: Any = self.build_network().eval().to(self.device, self.dtype)
            codec: Any = self.build_codec()
            self.codec = codec.to(self.device, self.dtype)
        except KeyError as error:
            raise CheckpointError(
                f"{self.directory / 'config.json'} lacks {error}; see the layout of the test data"
            ) from None

    def read_expected(self) -> dict[str, Tensor]:
        """Stored tensors on the device; times stay float32 as everywhere."""
        stored = read_tensors(self.directory / "expected.safetensors")
        kept = {name for name, tensor in stored.items() if not tensor.is_floating_point() or name in TIMES}
        return {n: t.to(self.device) if n in kept else t.to(self.device, self.dtype) for n, t in stored.items()}

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
            Rule(r"(ref|target)_(?:tokens|latents)", self.encoded, CLOSE),
            Rule(r"(ref|target)_ids", self.ids, EXACT),
            Rule(r"ref_vae_(mean|logvar)", self.moment, CLOSE),
            Rule(r"ref_decoded", self.decoded, CLOSE),
            Rule(r"context_with_proprio", lambda: self.packed(self.context).tokens, CLOSE),
            Rule(r"context_with_proprio_mask", lambda: self.packed(self.context).mask, EXACT),
            Rule(r"action_noise_seed(\d+)", self.noise, EXACT),
            Rule(r"actions_steps(\d+)_shift([\d.]+|default)", self.actions, ACTIONS),
            Rule(r"(timesteps|deltas)_steps(\d+)_shift([\d.]+|default)", self.schedule, ACTIONS),
            Rule(r"velocity_(first|last)_steps(\d+)_shift([\d.]+|default)", self.velocity, CLOSE),
            Rule(r"joint_pred_action", lambda: self.joint.action, CLOSE),
            Rule(r"joint_pred_video", self.predicted_video, self.video_tolerance),
            Rule(r"joint_weight_(video|action)", self.weight, CLOSE),
            Rule(r"joint_loss_(video|action|total)", self.loss, self.video_tolerance),
            Rule(r"joint_loss_(video|action)_per_sample", self.loss_per_sample, self.video_tolerance),
            Rule(r"joint_loss_action_with_dim_pad", self.loss_with_padding, CLOSE),
            Rule(r"grad_(\w+)", self.gradient, self.video_tolerance),
            Rule(r"init_(.+)", self.initial, CLOSE),
            Rule(r"goal_noise_seed(\d+)", self.goal_noise, EXACT),
            Rule(r"goal_velocity_first_steps(\d+)", self.goal_velocity, self.video_tolerance),
            Rule(r"goal_(?:latents|latent_tokens)_steps(\d+)", self.goal_latents, self.video_tolerance),
            Rule(r"goal_image_steps(\d+)", self.goal_image, self.video_tolerance),
        ]

    # --- inference ---

    @cached_property
    def latents(self) -> Tensor:
        """Latents of the image."""
        return self.codec.encode(self.expected["image"])

    def encoded(self, which: str) -> Tensor:
        """Latents of the image or of the target image, as the directory holds them."""
        return self.stored(self.latents if which == "ref" else self.codec.encode(self.expected["target_image"]))

    def stored(self, latents: Tensor) -> Tensor:
        """Bring latents to the form that the directory holds: tokens, unless a subclass says otherwise."""
        return tokens_of(latents)

    def latents_from(self, stored: Tensor) -> Tensor:
        """Undo `stored`."""
        return latents_of(stored, self.latents.shape[2], self.latents.shape[3])

    def ids(self, which: str) -> Tensor:
        """Positions of image tokens, (1, R, axes)."""
        time = self.network.reference_time if which == "ref" else self.network.target_time
        return self.network.image_ids(*self.latents.shape[2:], time, self.device)[None]

    def moment(self, which: str) -> Tensor:
        """Mean or log variance of the posterior."""
        mean, logvar = self.codec.moments(self.expected["image"])
        return mean if which == "mean" else logvar

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

    def grid(self, steps: int, shift: float = DEFAULT_SHIFT) -> list[tuple[Tensor, Tensor]]:
        """Times and deltas of the Euler steps."""
        times, deltas = (values.to(self.device) for values in flow.schedule(steps, shift))
        return list(zip(times, deltas, strict=True))

    def velocity(self, which: str, steps: str, shift: str) -> Tensor:
        """First or last velocity of the Euler loop, modulation computed at each step."""
        plan = _denoising(steps, shift)
        actions, velocities = self.start, []
        with torch.no_grad():
            for timestep, delta in self.grid(plan.steps, plan.shift):
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

    def loss_per_sample(self, which: str) -> Tensor:
        """Unweighted error of each sample, (B,)."""
        batch = self.batch
        if which == "action":
            rows = [replace(batch, **{name: getattr(batch, name)[i : i + 1] for name in PER_SAMPLE}) for i in range(2)]
            pairs = zip(rows, self.joint.action.split(1), strict=True)
            return torch.stack([flow.action_loss(v, b) / flow.loss_weight(b.action_timestep)[0] for b, v in pairs])
        assert self.joint.video is not None and batch.target is not None and batch.target_noise is not None
        return (self.joint.video - (batch.target_noise - batch.target)).square().flatten(1).mean(1)

    def predicted_video(self) -> Tensor:
        """Velocity of the target."""
        assert self.joint.video is not None
        return self.stored(self.joint.video)

    def loss_with_padding(self) -> Tensor:
        """Action loss with padded dims as well, (1,)."""
        padded = replace(self.batch, action_dim_is_pad=self.expected["joint_action_dim_is_pad"].bool())
        return flow.action_loss(self.joint.action, padded).reshape(1)

    def gradient(self, name: str) -> Tensor | None:
        """Gradient of the total loss; None where a weight has none."""
        if name not in self.gradients:
            return None
        return self._gradients[self.gradients[name]]

    @cached_property
    def _gradients(self) -> dict[str, Tensor | None]:
        names = list(self.gradients.values())
        wanted = [self.network.get_parameter(name) for name in names]
        total = flow.losses(self.joint, self.batch).total
        return dict(zip(names, torch.autograd.grad(total, wanted, allow_unused=True), strict=True))

    # --- initialisation and goal preview ---

    @cached_property
    def _initial(self) -> dict[str, Tensor]:
        backbone = read_tensors(self.directory / "transformer.safetensors")
        source = {name.removeprefix(self.transformer_prefix): tensor for name, tensor in backbone.items()}
        wanted = dict(self.network.action.named_parameters())
        return inherited(wanted, source, self.network.inheritance(), authors_way=True)

    def initial(self, name: str) -> Tensor:
        """Expert tensor as the authors initialise it."""
        return self._initial[name]

    def goal_noise(self, seed: str) -> Tensor:
        """Start noise of the goal image."""
        return self.stored(self.network.goal_noise(int(seed), self.latents))

    def _goal(self, steps: str) -> tuple[Tensor, list[Tensor]]:
        """Goal latents and the velocities on the way."""
        if steps not in self._goals:
            self._goals[steps] = self._run_goal(int(steps))
        return self._goals[steps]

    def _run_goal(self, steps: int) -> tuple[Tensor, list[Tensor]]:
        start = next(tensor for name, tensor in self.expected.items() if name.startswith("goal_noise_seed"))
        target, velocities, e = self.latents_from(start), [], self.expected
        with torch.no_grad():
            for timestep, delta in self.grid(steps):
                velocities.append(
                    self.network.preview_velocity(target, timestep[None], self.latents, self.context, e["proprio"])
                )
                target = target + velocities[-1] * delta
        return target, velocities

    def goal_velocity(self, steps: str) -> Tensor:
        """First velocity of the goal."""
        return self.stored(self._goal(steps)[1][0])

    def goal_latents(self, steps: str) -> Tensor:
        """Goal before decoding."""
        return self.stored(self._goal(steps)[0])

    def goal_image(self, steps: str) -> Tensor:
        """Decoded goal image."""
        return self.codec.decode(self._goal(steps)[0])


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
