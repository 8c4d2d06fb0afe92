# SPDX-License-Identifier: Apache-2.0
"""Batches for the network: latents, normalised joints and action chunks. A batch is a function of (seed, step)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.schema import Floats
from imagewam_ros.core.stats import Statistics, normaliser
from imagewam_ros.data.dataset import Dataset, Rows
from imagewam_ros.model import flow
from imagewam_ros.model.protocol import Context, Instruction, JointBatch, TextEncoder
from imagewam_ros.training.pixels import Pixels, to_unit
from imagewam_ros.training.presets import TrainConfig

if TYPE_CHECKING:
    from imagewam_ros.kinematics.arm_space import ArmSpace

Latents = NDArray[np.float16]


@dataclass(frozen=True)
class Samples:
    """Everything a batch is made of. latents (frames, C, h, w) follow the data set's numbering.

    Where text features depend on the image (Ovis-U1), text computes them from pixels (frames, H, W, 3).
    Where the contract's vectors are not the data set's joints, space makes them; each frame's are made once.
    padded_dims are the network's numbers that mean nothing: zero in state and actions, and no part of the loss.
    """

    dataset: Dataset
    latents: Latents
    contract: Contract
    statistics: Mapping[str, Statistics]
    instructions: Mapping[str, Instruction]
    text: TextEncoder | None = None
    pixels: Pixels | None = None
    space: "ArmSpace | None" = None
    padded_dims: tuple[int, ...] = ()
    _vectors: dict[int, tuple[Floats, Floats]] = field(default_factory=dict, init=False, repr=False)

    def draw(self, rows: Rows, config: TrainConfig, seed: int, step: int) -> JointBatch:
        """Batch of `step`, drawn from frames `rows`."""
        rng = np.random.default_rng((seed, step))
        chosen = rng.choice(rows, config.batch)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        proprio, (actions, past_end) = self.states(chosen), self.actions(chosen)
        left_out = past_end if config.mask_past_end else self.dataset.unknown(chosen)
        proprio = proprio + config.proprio_noise * torch.randn(proprio.shape, generator=noise)
        proprio, actions = self.widened(proprio), self.widened(actions)
        shape, denoising = (config.batch * config.draws, *actions.shape[1:]), self.contract.denoising
        action_noise = torch.randn(shape, generator=noise)
        action_timestep = flow.draw_timesteps(shape[0], denoising.shift, noise, denoising.time_grid)
        target = self.images(self.dataset.future(chosen[: config.targets])) if config.targets else None
        return JointBatch(
            reference=self.images(chosen),
            context=self.context(chosen),
            proprio=proprio,
            actions=actions,
            action_noise=action_noise,
            action_timestep=action_timestep,
            target=target,
            target_noise=None if target is None else torch.randn(target.shape, generator=noise),
            target_timestep=None
            if target is None
            else flow.draw_timesteps(config.targets, denoising.shift, noise, denoising.time_grid),
            action_is_pad=torch.from_numpy(left_out) if left_out.any() else None,
            action_dim_is_pad=self._meaningless(actions) if self.padded_dims else None,
            prefix_at_zero=config.prefix_at_zero,
        )

    def images(self, rows: Rows) -> Tensor:
        """Latents (B, C, h, w) float32."""
        return torch.from_numpy(self.latents[rows]).float()

    def states(self, rows: Rows) -> Tensor:
        """Normalised states (B, P)."""
        normalise = normaliser(self.contract.normalisation, self.statistics["state"])
        return torch.from_numpy(normalise.forward(self.measured(rows))).float()

    def actions(self, rows: Rows) -> tuple[Tensor, NDArray[np.bool_]]:
        """Normalised chunks (B, T, D) and which rows lie past a demonstration's end (B, T)."""
        normalise = normaliser(self.contract.normalisation, self.statistics["action"])
        chunks, past_end = self.taught(rows)
        return torch.from_numpy(normalise.forward(chunks)).float(), past_end

    def measured(self, rows: Rows) -> Floats:
        """States (B, P) in the contract's numbers."""
        if self.space is None:
            return self.dataset.positions[rows]
        return np.stack([self._made(self.space, int(row))[0] for row in rows])

    def taught(self, rows: Rows) -> tuple[Floats, NDArray[np.bool_]]:
        """Chunks (B, T, D) in the contract's numbers and which rows lie past a demonstration's end (B, T)."""
        chunks, past_end = self.dataset.chunks(rows)
        if self.space is not None:
            chunks = np.stack([self._made(self.space, int(row))[1] for row in rows])
        return chunks, past_end

    def widened(self, values: Tensor) -> Tensor:
        """Values (..., dims) with zeros at the padded dims."""
        if not self.padded_dims:
            return values
        wide = values.new_zeros(*values.shape[:-1], values.shape[-1] + len(self.padded_dims))
        wide[..., [place for place in range(wide.shape[-1]) if place not in self.padded_dims]] = values
        return wide

    def _meaningless(self, actions: Tensor) -> Tensor:
        """Which numbers of each sample (B, D) are padding."""
        padded = torch.zeros(actions.shape[0], actions.shape[-1], dtype=torch.bool)
        padded[:, list(self.padded_dims)] = True
        return padded

    def _made(self, space: "ArmSpace", row: int) -> tuple[Floats, Floats]:
        """State (P,) and chunk (T, D) of one frame in the model's own numbers."""
        if row not in self._vectors:
            measured = self.dataset.positions[row]
            targets = self.dataset.chunks(np.array([row]))[0][0][:, space.commanded]
            self._vectors[row] = space.state(measured), space.actions(targets, measured)
        return self._vectors[row]

    def context(self, rows: Rows) -> Context:
        """Text features (B, L, ctx), padded where instructions differ in length; B is 1 where all share one."""
        texts = [self.dataset.demonstrations[owner].instruction for owner in self.dataset.owner[rows]]
        tokens = [self.instructions[text].tokens for text in texts]
        if tokens[0].ndim == 1:
            tokens = self._seen(rows, tokens)
            lengths = torch.tensor([len(t) for t in tokens])
        else:
            tokens = tokens[:1] if len(set(texts)) == 1 else tokens
            lengths = torch.tensor([self._valid(t) for t in tokens])
        padded = torch.nn.utils.rnn.pad_sequence([t.float() for t in tokens], batch_first=True)
        mask = torch.arange(padded.shape[1])[None] < lengths[:, None]
        return Context(padded, None if mask.all() else mask)

    def _valid(self, tokens: Tensor) -> int:
        """How many of an instruction's features (L, ctx) are text; OmniGen2 may keep a pad row behind them."""
        if self.text is None:
            return len(tokens)
        mask = self.text.condition(tokens, tokens.new_empty(0)).mask  # encoders of such features see no image
        return len(tokens) if mask is None else int(mask.sum())

    @torch.no_grad()
    def _seen(self, rows: Rows, ids: Sequence[Tensor]) -> list[Tensor]:
        """Features (L, ctx) of each frame's instruction together with its image."""
        assert self.text is not None and self.pixels is not None
        features = []
        for row, tokens in zip(rows, ids, strict=True):
            found = self.text.condition(tokens, to_unit(self.pixels[row : row + 1]))
            features.append(found.tokens[0] if found.mask is None else found.tokens[0, found.mask[0]])
        return features
