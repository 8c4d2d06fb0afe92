# SPDX-License-Identifier: Apache-2.0
"""Lanes and Picard sweeps against the sequential steps, on mild and on stiff fields."""

from copy import deepcopy

import pytest
import torch

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.flow import action_noise
from imagewam_ros.model.lanes import LaneCache, denoise_lanes, with_lanes
from imagewam_ros.model.picard import denoise_parallel, estimated_error, plan_sweeps, sweep_all
from imagewam_ros.model.protocol import Context

HORIZON = 6


def prefilled(network, lanes, mask=None):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, network.config.channels, 2, 4, generator=generator)
    context = Context(torch.randn(1, 5, network.config.text_dim, generator=generator), mask)
    with torch.no_grad():
        plain = network.prefill(latents, context, torch.randn(1, 14, generator=generator), HORIZON)
    return with_lanes(plain, lanes) if lanes else plain


def stiff(network, gain):
    network = deepcopy(network)
    with torch.no_grad():
        network.action.head.linear.weight.mul_(gain)
    return network


def test_lanes_are_the_draws_one_by_one(small_model):
    network = small_model.network
    plan = network.plan(Denoising())
    noise = torch.cat([action_noise(seed, HORIZON, 14) for seed in range(3)])
    plain, lanes = prefilled(network, 0), prefilled(network, 3)
    with torch.no_grad():
        together = denoise_lanes(network, noise, lanes, plan.action, plan.deltas)
    for one, found in zip(noise, together, strict=True):
        assert torch.allclose(network.denoise(one[None], plain, plan)[0], found, atol=1e-5)
        assert torch.equal(network.denoise(one[None], plain, plan), network.denoise(one[None], lanes, plan))


def test_prefill_reuses_the_memory_of_lanes(small_model):
    network = small_model.network
    cache = prefilled(network, 3)
    assert isinstance(cache, LaneCache) and with_lanes(cache, 2) is cache
    before = cache.keys.data_ptr()
    latents, context = (
        torch.zeros(1, network.config.channels, 2, 4),
        Context(torch.zeros(1, 5, network.config.text_dim)),
    )
    with torch.no_grad():
        again = network.prefill(latents, context, torch.zeros(1, 14), HORIZON, cache=cache)
        other = network.prefill(latents, context, torch.zeros(1, 14), HORIZON)
    assert again is cache and cache.keys.data_ptr() == before
    length = other.prefix_length
    assert torch.equal(again.keys[:, :, :, :length], other.keys[:, :, :, :length])


def test_padded_prefix_has_no_lanes(small_model):
    with pytest.raises(ConfigError, match="several draws need one prefix without padding"):
        prefilled(small_model.network, 2, torch.tensor([[True] * 3 + [False] * 2]))


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_sweeps_converge_to_the_sequential_answer(small_model, gain):
    network = stiff(small_model.network, gain)
    cache, plan = prefilled(network, 10), network.plan(Denoising())
    noise = action_noise(0, HORIZON, 14)
    wanted = network.denoise(noise, cache, plan)
    errors = []
    for count in (3, 4, 5, 10):
        actions, _ = sweep_all(network, noise, cache, plan, plan_sweeps(network, plan, HORIZON, count))
        errors.append(float((actions - wanted).abs().max()))
    assert errors[2] <= 1e-3 * gain**3 and errors[3] <= 2e-5, errors
    assert errors == sorted(errors, reverse=True) or errors[1] < 1e-5


def test_estimate_covers_the_error(small_model):
    network = stiff(small_model.network, 3.0)
    cache, plan = prefilled(network, 10), network.plan(Denoising())
    sweeps = plan_sweeps(network, plan, HORIZON, 4)
    for seed in range(5):
        noise = action_noise(seed, HORIZON, 14)
        outcome = denoise_parallel(network, noise, cache, plan, sweeps, float("inf"))
        error = float((outcome.actions - network.denoise(noise, cache, plan)).abs().max())
        assert not outcome.sequential and error <= outcome.estimate + 2e-5


@pytest.mark.parametrize("gain", [300.0, float("nan")])
def test_stiff_field_falls_back_to_the_exact_answer(small_model, gain):
    network = stiff(small_model.network, gain)
    cache, plan = prefilled(network, 10), network.plan(Denoising())
    noise = action_noise(0, HORIZON, 14)
    outcome = denoise_parallel(network, noise, cache, plan, plan_sweeps(network, plan, HORIZON, 4), 1e-3)
    assert outcome.sequential and not outcome.estimate <= 1e-3
    assert torch.equal(outcome.actions.nan_to_num(), network.denoise(noise, cache, plan).nan_to_num())


def test_error_estimate():
    assert estimated_error(1.0, 0.0) == 0.0
    assert estimated_error(1.0, 0.5) == 1.5
    assert estimated_error(1.0, 1.0) == float("inf") == estimated_error(float("nan"), 1.0)


@pytest.mark.parametrize("count", [2, 11])
def test_number_of_sweeps_is_checked(small_model, count):
    plan = small_model.network.plan(Denoising())
    with pytest.raises(ConfigError, match=f"sweeps must be 3 to the number of steps \\(10\\), found {count}"):
        plan_sweeps(small_model.network, plan, HORIZON, count)
