# SPDX-License-Identifier: Apache-2.0
"""The proprio token's place, and padded dims in and out."""

import pytest
import small_networks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.core.contract import Denoising
from imagewam_ros.model.network import pack_proprio
from imagewam_ros.model.protocol import Context


@settings(max_examples=25)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_token_follows_the_last_valid_one(lengths):
    """Against a loop over samples that builds the row by hand."""
    count, width = 5, 3
    text = torch.arange(len(lengths) * count * width, dtype=torch.float32).reshape(len(lengths), count, width)
    mask = torch.arange(count)[None] < torch.tensor(lengths)[:, None]
    token = -torch.arange(1.0, len(lengths) * width + 1).reshape(len(lengths), width)
    found = pack_proprio(Context(text, mask), token)
    assert found.tokens.shape == (len(lengths), count + 1, width)
    for sample, length in enumerate(lengths):
        wanted = torch.cat([text[sample, :length], token[sample : sample + 1]])
        assert torch.equal(found.tokens[sample, : length + 1], wanted)
        assert found.mask[sample].tolist() == [i <= length for i in range(count + 1)]


def test_without_pads_the_token_is_last():
    text, token = torch.ones(1, 4, 2), torch.zeros(3, 2)
    found = pack_proprio(Context(text), token)
    assert found.mask is None and found.tokens.shape == (3, 5, 2)
    assert (found.tokens[:, -1] == 0).all() and (found.tokens[:, :-1] == 1).all()


def test_one_text_serves_all_samples_and_its_type_is_the_tokens():
    mask = torch.tensor([[True, True, False]])
    found = pack_proprio(Context(torch.ones(1, 3, 2), mask), torch.zeros(2, 2, dtype=torch.bfloat16))
    assert found.tokens.dtype == torch.bfloat16 and found.tokens.shape == (2, 4, 2)
    assert found.mask.tolist() == [[True, True, True, False]] * 2


def padded(backbone):
    return small_networks.network(backbone, action_dim=5, proprio_dim=5, padded_dims=(1, 4))


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_padded_dims_are_zero_going_in_and_gone_coming_out(backbone):
    network = padded(backbone)
    values = torch.arange(6.0).reshape(2, 3) + 1
    wide = network.with_padding(values)
    assert wide.shape == (2, 5) and (wide[:, [1, 4]] == 0).all()
    assert torch.equal(network.without_padding(wide), values)


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_denoised_chunks_have_the_joints_only(backbone):
    network, plan_of = padded(backbone), Denoising(2)
    batch = small_networks.batch(network, proprio=torch.zeros(2, 5), actions=torch.zeros(2, 5, 5))
    with torch.no_grad():
        cache = network.prefill(batch.reference, batch.context, batch.proprio, 4)
        noise = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
        found = network.denoise(noise, cache, network.plan(plan_of))
    assert found.shape == (2, 4, 3) and found.dtype == torch.float32


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_network_without_padding_leaves_values_alone(backbone):
    network, values = small_networks.network(backbone), torch.ones(2, 3)
    assert network.with_padding(values) is values and network.without_padding(values) is values


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_plan_holds_one_modulation_per_step_and_no_gradients(backbone):
    network = small_networks.network(backbone)
    plan = network.plan(Denoising(4, 3.0))
    assert len(plan.action) == 4 == len(plan.timesteps) == len(plan.deltas)
    assert not plan.timesteps.requires_grad and (plan.timesteps.diff() < 0).all()
    assert plan.denoising == Denoising(4, 3.0)


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_more_steps_converge(backbone):
    """Euler's error falls with the step: 32 steps are nearer to 64 than 4 are."""
    network = small_networks.network(backbone)
    batch = small_networks.batch(network, samples=1)
    with torch.no_grad():
        cache = network.prefill(batch.reference, batch.context, batch.proprio, small_networks.HORIZON)
        found = {n: network.denoise(batch.action_noise, cache, network.plan(Denoising(n, 1.0))) for n in (4, 32, 64)}
    coarse, fine = ((found[n] - found[64]).abs().max() for n in (4, 32))
    assert fine < 0.5 * coarse


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_a_network_that_acted_can_be_trained(backbone):
    """What it keeps of inference, such as rotary tables, has to serve gradients too."""
    network = small_networks.network(backbone)
    batch = small_networks.batch(network)
    with torch.inference_mode():
        cache = network.prefill(batch.reference, batch.context, batch.proprio, small_networks.HORIZON)
        network.denoise(batch.action_noise, cache, network.plan(Denoising(2)))
    network.joint_forward(batch).action.sum().backward()
    assert network.proprio_encoder.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_meta_network_has_the_same_keys_and_no_memory(backbone):
    from imagewam_ros.model import factory

    spec = factory.ModelSpec(backbone, small_networks.config(backbone), None)
    meta, real = factory.build_network(spec, "meta"), factory.build_network(spec)
    shapes = [{name: tuple(t.shape) for name, t in network.state_dict().items()} for network in (meta, real)]
    assert shapes[0] == shapes[1]
    assert {t.device.type for t in meta.state_dict().values()} == {"meta"}
