# SPDX-License-Identifier: Apache-2.0
"""Committed rows, their forecast, and how they condition a chunk."""

import pytest
import torch

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.chunking import (
    Committed,
    DelayForecast,
    Differentiable,
    denoise_frozen,
    denoise_guided,
    differentiable,
    soft_weights,
)
from imagewam_ros.model.flow import action_noise
from imagewam_ros.model.layers import Heads
from imagewam_ros.model.mot import KeyValueCache, attend
from imagewam_ros.model.ovis_u1_network import OvisCache
from imagewam_ros.model.protocol import Context

HORIZON = 6


@pytest.fixture(scope="module")
def prefilled(small_model):
    network = small_model.network
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, network.config.channels, 2, 4, generator=generator)
    context = Context(torch.randn(1, 5, network.config.text_dim, generator=generator))
    with torch.no_grad():
        cache = network.prefill(latents, context, torch.zeros(1, 14), HORIZON)
    return network, cache, network.plan(Denoising())


def known(rows, overlap=5):
    actions = torch.randn(HORIZON, 14, generator=torch.Generator().manual_seed(3))
    return Committed(actions, soft_weights(HORIZON, rows, overlap), rows)


def test_weights_are_one_then_fall_to_zero():
    weights = soft_weights(8, 3, 6)
    assert weights[:3].tolist() == [1, 1, 1] and weights[6:].tolist() == [0, 0]
    assert 1 > weights[3] > weights[4] > weights[5] > 0
    assert soft_weights(4, 4, 4).tolist() == [1] * 4


def test_frozen_rows_come_out_as_they_went_in(prefilled):
    network, cache, plan = prefilled
    noise, committed = action_noise(0, HORIZON, 14), known(2)
    actions = denoise_frozen(network, noise, cache, plan, committed)
    free = network.denoise(noise, cache, plan)
    assert torch.equal(actions[0, :2], committed.actions[:2])
    assert (actions[0, 2:] - free[0, 2:]).abs().max() > 1e-4  # the others see them


def test_frozen_rows_that_the_network_chose_itself_change_little(prefilled):
    """The oracle of conditioning: rows equal to the free answer leave an answer that is consistent with them."""
    network, cache, plan = prefilled
    noise = action_noise(0, HORIZON, 14)
    free = network.denoise(noise, cache, plan)[0]
    own = denoise_frozen(network, noise, cache, plan, Committed(free, soft_weights(HORIZON, 2, 5), 2))[0]
    other = denoise_frozen(network, noise, cache, plan, known(2))[0]
    assert (own - free)[2:].abs().max() < (other - free)[2:].abs().max()


def test_guidance_pulls_towards_the_committed_rows(prefilled):
    network, cache, plan = prefilled
    noise, committed = action_noise(0, HORIZON, 14), known(3)
    free = network.denoise(noise, cache, plan)
    with torch.inference_mode():
        guided = denoise_guided(network, noise, cache, plan, committed)
    away = [(x[0, :3] - committed.actions[:3]).abs().mean() for x in (free, guided)]
    assert away[1] < 0.2 * away[0]
    assert not guided.requires_grad and all(p.grad is None for p in network.parameters())


def test_guidance_without_weight_is_the_plain_answer(prefilled):
    network, cache, plan = prefilled
    noise = action_noise(0, HORIZON, 14)
    nothing = Committed(torch.zeros(HORIZON, 14), torch.zeros(HORIZON), 0)
    guided = denoise_guided(network, noise, cache, plan, nothing)
    assert torch.allclose(guided, network.denoise(noise, cache, plan), atol=1e-6)


def test_forecast_is_a_quantile_after_the_warm_up():
    forecast = DelayForecast(0.9, window=10, warm_up=2)
    assert forecast.forecast_ns == 0
    for delay in (900, 900, *range(1, 11)):
        forecast.record(delay)
    assert forecast.forecast_ns == 9
    forecast.record(100)
    assert forecast.forecast_ns == 10  # 1 left the window
    with pytest.raises(ConfigError, match=r"quantile must be in \(0, 1\]"):
        DelayForecast(0.0)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_and_its_gradients_are_those_of_the_fused_one(kv_heads):
    def draw(*shape):
        return torch.randn(*shape, generator=generator, requires_grad=True)

    generator = torch.Generator().manual_seed(0)
    cache = KeyValueCache((2, 1, kv_heads, 9, 8), 3, torch.zeros(1))
    with torch.no_grad():
        cache.store(1, draw(1, kv_heads, 9, 8), draw(1, kv_heads, 9, 8))
    heads, weight = Heads(draw(1, 4, 3, 8), draw(1, kv_heads, 3, 8), draw(1, kv_heads, 3, 8)), draw(1, 3, 32).detach()
    key = torch.cat([cache.keys[1, :, :, :9], heads.key], 2)
    wanted = attend(heads.query, key, torch.cat([cache.values[1, :, :, :9], heads.value], 2))
    found = differentiable(cache).attend(1, heads)
    assert torch.allclose(found, wanted, atol=1e-6)
    gradients = [torch.autograd.grad((answer * weight).sum(), heads) for answer in (found, wanted)]
    for ours, fused in zip(*gradients, strict=True):
        assert torch.allclose(ours, fused, atol=1e-6)


def test_both_caches_of_a_pair_are_made_differentiable():
    def cache():
        return KeyValueCache((1, 1, 2, 4, 8), 3, torch.zeros(1))

    pair = differentiable(OvisCache(cache(), cache()))
    assert isinstance(pair.joint, Differentiable) and isinstance(pair.image, Differentiable)
