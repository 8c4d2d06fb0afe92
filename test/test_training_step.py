# SPDX-License-Identifier: Apache-2.0
"""One optimiser step on the reference weights and batch is the authors' loss, its gradient and plain AdamW."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plain_flux2 import velocities

from imagewam_ros.model import flow
from imagewam_ros.model.protocol import Context
from imagewam_ros.model.reference import Reference
from imagewam_ros.model.reference_flux2 import Flux2Reference
from imagewam_ros.model.reference_omnigen2 import OmniGen2Reference
from imagewam_ros.model.reference_ovis_u1 import OvisU1Reference
from imagewam_ros.training.network import learn, start
from imagewam_ros.training.presets import TrainConfig

DATA = Path(__file__).parent / "data"
CONFIG = TrainConfig(steps=10, warmup=0, batch=2, draws=1, targets=2, learning_rate=1e-3, prefix_at_zero=False)
REFERENCES = {"flux2_tiny": Flux2Reference, "omnigen2_tiny": OmniGen2Reference, "ovis_u1_tiny": OvisU1Reference}


def plain_losses(reference: Reference) -> torch.Tensor:
    """The total loss of the reference's batch, sample by sample, by one attention over one sequence."""
    batch, total = reference.batch, torch.zeros(())
    valid = batch.context.mask.sum(1).tolist()
    for i, length in enumerate(valid):
        one = slice(i, i + 1)
        noised = flow.noised(batch.target[one], batch.target_noise[one], batch.target_timestep[one])
        actions = flow.noised(batch.actions[one], batch.action_noise[one], batch.action_timestep[one])
        video, action = velocities(
            reference.network, batch.reference[one], Context(batch.context.tokens[one, :length]), batch.proprio[one],
            noised, batch.target_timestep[one], actions, batch.action_timestep[one], batch.target_timestep[one],
        )  # fmt: skip
        kept = ~batch.action_is_pad[i]
        rows = (action - (batch.action_noise[one] - batch.actions[one])).square().mean(2)[0]
        image = (video - (batch.target_noise[one] - batch.target[one])).square().mean()
        weights = flow.loss_weight(torch.stack([batch.target_timestep[i], batch.action_timestep[i]]))
        total = total + (0.5 * weights[0] * image + weights[1] * rows[kept].mean()) / len(valid)
    return total


def step_of_torch(reference: Reference, total: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights after torch's own AdamW has followed the gradient of `total` once."""
    network = reference.network
    optimizer = torch.optim.AdamW(
        network.parameters(), CONFIG.learning_rate, CONFIG.betas, weight_decay=CONFIG.weight_decay, foreach=False
    )
    total.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), CONFIG.clip)
    optimizer.step()
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}


@pytest.mark.parametrize("name", REFERENCES)
def test_step_starts_at_the_authors_loss(name: str) -> None:
    reference = REFERENCES[name](DATA / name)
    before = {key: weight.detach().clone() for key, weight in reference.network.named_parameters()}
    losses = learn(start(reference.network, CONFIG), reference.batch, CONFIG, shift=5.0)
    for part in ("video", "action", "total"):
        wanted = reference.expected[f"joint_loss_{part}"]
        assert torch.allclose(getattr(losses, part).reshape(1), wanted.reshape(1), rtol=1e-4)
    after = dict(reference.network.named_parameters())
    moved = {key: float((after[key] - before[key]).abs().max()) for key in before if after[key].grad is not None}
    assert moved and 0 < max(moved.values()) < 1.1 * CONFIG.learning_rate + 1e-4


@pytest.mark.parametrize("name", REFERENCES)
def test_step_is_that_of_torch(name: str) -> None:
    mine, plain = (REFERENCES[name](DATA / name) for _ in range(2))
    learn(start(mine.network, CONFIG), mine.batch, CONFIG, shift=5.0)
    wanted = step_of_torch(plain, flow.losses(plain.joint, plain.batch).total)
    for key, weight in mine.network.named_parameters():
        assert torch.allclose(weight, wanted[key], atol=2e-6), key


def test_step_is_that_of_the_plain_forward() -> None:
    mine, plain = (Flux2Reference(DATA / "flux2_tiny") for _ in range(2))
    losses = learn(start(mine.network, CONFIG), mine.batch, CONFIG, shift=5.0)
    total = plain_losses(plain)
    assert torch.allclose(losses.total, total, rtol=1e-5)
    wanted = step_of_torch(plain, total)
    moved = torch.cat([(w - wanted[key]).abs().flatten() for key, w in mine.network.named_parameters()])
    # AdamW's first step is the sign of the gradient: where that is nothing but rounding, it may point either way.
    assert (moved > 2e-5).float().mean() < 1e-3 and moved.max() < 2.1 * CONFIG.learning_rate


def test_clipping_bounds_the_gradient() -> None:
    reference = Flux2Reference(DATA / "flux2_tiny")
    config = replace(CONFIG, clip=1e-3)
    learn(start(reference.network, config), reference.batch, config, shift=5.0)
    gradients = [weight.grad for weight in reference.network.parameters() if weight.grad is not None]
    assert torch.cat([g.flatten() for g in gradients]).norm() == pytest.approx(1e-3, rel=1e-3)
