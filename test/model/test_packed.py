# SPDX-License-Identifier: Apache-2.0
"""Packed linear layers against the plain ones, which stay the oracle."""

import weakref

import pytest
import small_networks
import torch
from torch import nn

from imagewam_ros.core.contract import Denoising
from imagewam_ros.model.chunking import Committed, denoise_guided, soft_weights
from imagewam_ros.model.flow import action_noise
from imagewam_ros.model.flux2 import linear_rows
from imagewam_ros.model.packed import PackedLinear, can_pack, pack, packed
from imagewam_ros.model.protocol import Context

HORIZON = 6
WEIGHT = nn.Parameter(torch.zeros(1))
pytestmark = pytest.mark.skipif(not can_pack(WEIGHT), reason="this processor has no packed kernels")


def linear(bias=True):
    torch.manual_seed(0)
    return nn.Linear(40, 24, bias=bias)


def prefilled(network, plan):
    generator = torch.Generator().manual_seed(1)
    config = network.config
    latents = torch.randn(1, config.channels, 4, 8, generator=generator)
    context = Context(torch.randn(1, 5, config.text_dim, generator=generator))
    with torch.no_grad():
        return network.prefill(latents, context, torch.randn(1, config.proprio_dim, generator=generator), HORIZON, plan)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40,), (1, 40), (16, 40), (2, 3, 40)])
def test_products_are_the_plain_ones(bias, shape):
    plain, x = linear(bias), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, again = PackedLinear(plain)(x), PackedLinear(plain)(x)
    assert torch.allclose(found, plain(x), atol=1e-6) and torch.equal(found, again)


def test_some_rows_are_those_of_the_whole():
    plain = linear()
    layer, x = PackedLinear(plain), torch.randn(1, 7, 40)
    with torch.no_grad():
        found = linear_rows(layer, x, slice(8, 20))
        assert torch.allclose(found, plain(x)[..., 8:20], atol=1e-6)
    assert layer.rows(8, 20) is layer.rows(8, 20)


def test_gradients_pass_to_the_input():
    plain, wanted = linear(), torch.randn(3, 40, requires_grad=True)
    found = wanted.detach().clone().requires_grad_()
    plain(wanted).square().sum().backward()
    PackedLinear(plain)(found).square().sum().backward()
    assert torch.allclose(found.grad, wanted.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_actions_are_those_of_the_plain_network(backbone):
    network = small_networks.network(backbone)
    twin = packed(network)
    noise, answers = action_noise(0, HORIZON, small_networks.DIMS), []
    for each in (network, twin):
        plan = each.plan(Denoising())
        cache = prefilled(each, plan)
        assert torch.equal(each.denoise(noise, cache, plan), each.denoise(noise, cache, plan))
        answers.append(each.denoise(noise, cache, plan))
    assert torch.allclose(*answers, atol=1e-5) and not any(type(m) is nn.Linear for m in twin.modules())


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_guidance_passes_through_packed_layers(backbone):
    network = small_networks.network(backbone)
    committed = Committed(torch.ones(HORIZON, small_networks.DIMS), soft_weights(HORIZON, 2, 5), 2)
    answers = []
    for each in (network, packed(network)):
        plan = each.plan(Denoising())
        answers.append(
            denoise_guided(each, action_noise(0, HORIZON, small_networks.DIMS), prefilled(each, plan), plan, committed)
        )
    assert torch.allclose(*answers, atol=1e-4)


def test_other_weights_are_shared_and_the_given_network_stays():
    network = small_networks.network("flux2")
    names = [name for name, _ in network.named_parameters()]
    twin = packed(network)
    assert twin.action.single_blocks[0].norm.key_norm.scale is network.action.single_blocks[0].norm.key_norm.scale
    assert [name for name, _ in network.named_parameters()] == names
    assert packed(twin).action.head.linear is twin.action.head.linear


def test_packing_in_place_keeps_no_plain_weight():
    network = small_networks.network("flux2")
    plain = [weakref.ref(m.weight) for m in network.modules() if type(m) is nn.Linear]
    pack(network)
    assert plain and not any(weight() is not None for weight in plain)


def test_what_has_no_kernels_stays_plain():
    class Adapted(nn.Linear):
        pass

    odd = nn.Sequential(Adapted(4, 4), nn.Linear(4, 4, dtype=torch.float64), nn.Linear(4, 4, device="meta"))
    assert [type(layer) for layer in packed(odd)] == [Adapted, nn.Linear, nn.Linear]
