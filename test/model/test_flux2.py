# SPDX-License-Identifier: Apache-2.0
import dataclasses

import plain_flux2
import pytest
import torch

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model import flow
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.flux2_network import Flux2Network
from imagewam_ros.model.layers import rotate, rotation
from imagewam_ros.model.mot import check_pairing
from imagewam_ros.model.protocol import Context, JointBatch

HORIZON = 8


@pytest.fixture(scope="module")
def inputs(flux2):
    e = flux2.expected
    return flux2.latents, Context(e["text"][:, :7]), e["proprio"]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def joint_batch(flux2, **changes):
    e = flux2.expected
    values = dataclasses.asdict(flux2.batch) | {"context": Context(e["joint_text"][:, :5]), "prefix_at_zero": True}
    return JointBatch(**{**values, **changes})


@pytest.mark.parametrize("at_zero", [True, False])
def test_joint_forward_equals_one_masked_attention(flux2, at_zero):
    batch = joint_batch(flux2, prefix_at_zero=at_zero)
    with torch.no_grad():
        found = flux2.network.joint_forward(batch)
        video, action = plain_flux2.velocities(
            flux2.network,
            batch.reference,
            batch.context,
            batch.proprio,
            flow.noised(batch.target, batch.target_noise, batch.target_timestep),
            batch.target_timestep,
            flow.noised(batch.actions, batch.action_noise, batch.action_timestep),
            batch.action_timestep,
            torch.zeros(2) if at_zero else batch.target_timestep,
        )
    assert torch.allclose(found.video, video, atol=1e-5)
    assert torch.allclose(found.action, action, atol=1e-5)


def test_cached_velocity_equals_joint_velocity(flux2, inputs):
    latents, context, proprio = inputs
    noise, timestep = draw(1, HORIZON, 14), torch.tensor([700.0])
    batch = JointBatch(latents, context, proprio, torch.zeros(1, HORIZON, 14), noise, timestep)
    with torch.no_grad():
        cache = flux2.network.prefill(latents, context, proprio, HORIZON)
        cached = flux2.network.velocity(0.7 * noise, timestep, cache)
        joint = flux2.network.joint_forward(batch).action
    assert torch.allclose(cached, joint, atol=1e-6)


def test_denoising_with_a_plan_equals_the_plain_loop(flux2, inputs):
    noise, plan = draw(1, HORIZON, 14), flux2.network.plan(Denoising(6, 3.0))
    with torch.no_grad():
        cache = flux2.network.prefill(*inputs, HORIZON)
        actions = noise
        for timestep, delta in zip(plan.timesteps, plan.deltas, strict=True):
            actions = actions + delta * flux2.network.velocity(actions, timestep[None], cache)
        planned = flux2.network.prefill(*inputs, HORIZON, plan)
    assert torch.allclose(flux2.network.denoise(noise, planned, plan), actions, atol=1e-6)


def test_cache_memory_is_used_again_and_gives_the_same(flux2, inputs):
    latents, context, proprio = inputs
    noise, plan = draw(1, HORIZON, 14), flux2.network.plan(Denoising())
    with torch.no_grad():
        first = flux2.network.prefill(latents, context, proprio, HORIZON, plan)
        wanted = flux2.network.denoise(noise, first, plan)
        other = flux2.network.prefill(latents + 1, context, proprio, HORIZON, plan, first)
        assert other is first
        assert not torch.allclose(flux2.network.denoise(noise, other, plan), wanted, atol=1e-3)
        again = flux2.network.prefill(latents, context, proprio, HORIZON, plan, other)
        assert torch.equal(flux2.network.denoise(noise, again, plan), wanted)
        longer = Context(torch.cat([context.tokens, context.tokens], 1))
        assert flux2.network.prefill(latents, longer, proprio, HORIZON, plan, again) is not again


def test_trimmed_text_equals_padded_text(flux2, inputs):
    latents, context, proprio = inputs
    padded = Context(flux2.expected["text"], flux2.expected["text_mask"].bool())
    spoiled = Context(padded.tokens.masked_fill(~padded.mask[..., None], 9.0), padded.mask)
    noise, plan = draw(1, HORIZON, 14), flux2.network.plan(Denoising())
    with torch.no_grad():
        found = [
            flux2.network.denoise(noise, flux2.network.prefill(latents, text, proprio, HORIZON), plan)
            for text in (context, padded, spoiled)
        ]
    assert torch.allclose(found[0], found[1], atol=5e-6)
    assert torch.equal(found[1], found[2])  # what a pad holds is never read


@pytest.mark.parametrize("which", [0, 1, 2])
def test_image_text_and_proprio_each_move_the_actions(flux2, inputs, which):
    changed = list(inputs)
    changed[which] = Context(inputs[1].tokens * -1) if which == 1 else inputs[which] * -1
    noise, plan = draw(1, HORIZON, 14), flux2.network.plan(Denoising())
    with torch.no_grad():
        first, second = (
            flux2.network.denoise(noise, flux2.network.prefill(*values, HORIZON), plan) for values in (inputs, changed)
        )
    assert (first - second).abs().max() > 1e-2


def test_several_draws_share_one_prefix(flux2):
    batch = joint_batch(flux2, action_noise=draw(6, HORIZON, 14), action_timestep=torch.linspace(100, 900, 6))
    with torch.no_grad():
        together = flux2.network.joint_forward(batch).action
        for k in range(3):
            rows = torch.tensor([k, 3 + k])
            one = dataclasses.replace(
                batch, action_noise=batch.action_noise[rows], action_timestep=batch.action_timestep[rows]
            )
            assert torch.allclose(flux2.network.joint_forward(one).action, together[rows], atol=1e-5)


def test_target_may_be_a_sub_batch(flux2):
    batch = joint_batch(flux2)
    small = dataclasses.replace(
        batch, target=batch.target[:1], target_noise=batch.target_noise[:1], target_timestep=batch.target_timestep[:1]
    )
    with torch.no_grad():
        whole, part = flux2.network.joint_forward(batch), flux2.network.joint_forward(small)
        none = flux2.network.joint_forward(
            dataclasses.replace(batch, target=None, target_noise=None, target_timestep=None)
        )
    assert torch.allclose(part.video, whole.video[:1], atol=1e-5)
    assert torch.allclose(part.action, whole.action, atol=1e-5)
    assert none.video is None and torch.equal(none.action, whole.action)


def test_target_timestep_moves_the_prefix_only_the_authors_way(flux2):
    with torch.no_grad():
        for at_zero in (True, False):
            batch = joint_batch(flux2, prefix_at_zero=at_zero)
            later = dataclasses.replace(batch, target_timestep=batch.target_timestep / 2)
            first, second = (flux2.network.joint_forward(b).action for b in (batch, later))
            assert torch.equal(first, second) == at_zero


def test_loss_falls_on_one_batch():
    torch.manual_seed(0)
    config = Flux2Config(
        hidden=32, heads=2, axes=(4, 4, 4, 4), double=1, single=2, channels=16, text_dim=24, action_dim=3,
        proprio_dim=3, action_hidden=16,
    )  # fmt: skip
    network = Flux2Network(config)
    network.initialise_from_scratch()
    batch = JointBatch(
        draw(2, 16, 2, 3), Context(draw(1, 4, 24)), draw(2, 3), draw(2, 6, 3), draw(4, 6, 3, seed=1),
        torch.tensor([800.0, 300, 600, 500]), draw(2, 16, 2, 3, seed=2), draw(2, 16, 2, 3, seed=3),
        torch.tensor([700.0, 400]),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    totals = []
    for _ in range(40):
        found = flow.losses(network.joint_forward(batch), batch)
        optimiser.zero_grad()
        found.total.backward()
        optimiser.step()
        totals.append(found.total.item())
    assert totals[-1] < 0.5 * totals[0]
    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    # the last block's text and reference rows end at keys and values; everything else learns
    assert silent == []


def test_rotation_turns_adjacent_pairs():
    ids = torch.tensor([[0.0, 3, 1, 0], [10, 0, 2, 5]])
    x = draw(1, 2, 2, 32)
    wanted = plain_flux2.rotate_by_pairs(x, ids, (8, 8, 8, 8), 2000.0)
    assert torch.allclose(rotate(x, rotation(ids, (8, 8, 8, 8), 2000.0)), wanted, atol=1e-5)


def test_rounded_positions_differ_from_exact_ones():
    ids = torch.tensor([[0.0, 0, 0, 63]])
    exact = rotation(ids, (32,) * 4, 2000.0)
    rounded = rotation(ids, (32,) * 4, 2000.0, torch.bfloat16)
    assert 0.01 < (exact.real - rounded.real).abs().max() < 0.2


def test_expert_pairs_with_the_backbone_and_preview_has_the_latents_shape(flux2, inputs):
    c = flux2.network.config
    layers = [(c.heads, c.heads, c.head_dim)] * (c.double + c.single)
    check_pairing(layers, [(c.heads, c.heads, c.head_dim)] * len(flux2.network.action.streams()))
    with torch.no_grad():
        found = flux2.network.preview_velocity(inputs[0], torch.tensor([1000.0]), *inputs)
    assert found.shape == inputs[0].shape


def test_bfloat16_stays_close(flux2, inputs):
    row = flux2.actions_in_bfloat16("10")
    assert row.dtype == torch.float32
    assert (row - flux2.expected["actions_steps10_bf16"]).abs().max() < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 100}, "hidden 100 must be heads 24 times the sum of axes"),
        ({"axes": (64, 32, 32)}, "axes must be four even widths"),
        ({"rope_dtype": "float16"}, "rope_dtype must be float32 or bfloat16, found 'float16'"),
    ],
)
def test_impossible_numbers_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Flux2Config(**changes)
