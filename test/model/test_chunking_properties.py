# SPDX-License-Identifier: Apache-2.0
"""Weights of committed rows and forecasts of delay, for any numbers."""

import numpy as np
import pytest
import small_networks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import HORIZON

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.chunking import Committed, DelayForecast, denoise_frozen, soft_weights
from imagewam_ros.model.flow import TIMESTEPS
from imagewam_ros.model.protocol import Context


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40))
def test_weights_fall_from_one_to_zero(horizon, committed, more):
    overlap = committed + more
    weights = soft_weights(horizon, committed, overlap)
    assert weights.shape == (horizon,) and (weights >= 0).all() and (weights <= 1).all()
    assert (weights.diff() <= 1e-6).all()
    assert (weights[:committed] == 1).all() and (weights[overlap:] == 0).all()


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=80), st.floats(0.05, 1.0), st.integers(1, 60))
def test_the_forecast_covers_its_share_of_the_newest_delays(delays, quantile, window):
    forecast = DelayForecast(quantile, window=window, warm_up=0)
    for delay in delays:
        forecast.record(delay)
    newest = np.array(delays[-window:])
    assert forecast.forecast_ns in newest
    assert np.mean(newest <= forecast.forecast_ns) >= quantile - 1e-9
    smaller = newest[newest < forecast.forecast_ns]
    assert not smaller.size or np.mean(newest <= smaller.max()) < quantile


@given(st.integers(0, 5), st.lists(st.integers(1, 100), max_size=10))
def test_the_warm_up_is_left_out(warm_up, delays):
    forecast, plain = DelayForecast(1.0, warm_up=warm_up), DelayForecast(1.0, warm_up=0)
    for delay in [10**9] * warm_up + delays:
        forecast.record(delay)
    for delay in delays:
        plain.record(delay)
    assert forecast.forecast_ns == plain.forecast_ns


@pytest.mark.parametrize("options", [{"quantile": 0.0}, {"quantile": 1.1}, {"window": 0}, {"warm_up": -1}])
def test_impossible_forecasts_are_refused(options):
    with pytest.raises(ConfigError, match=r"quantile must be in \(0, 1\] and window positive, found"):
        DelayForecast(**options)


def test_weights_are_float32_on_the_cpu():
    assert soft_weights(4, 1, 3).dtype == torch.float32


@pytest.fixture(scope="module", params=small_networks.BACKBONES)
def prefilled(request):
    """A network with a padded dim, its prefix and plan."""
    network = small_networks.network(request.param, padded_dims=(1,)).requires_grad_(False)
    batch, plan = small_networks.batch(network, samples=1), network.plan(Denoising(steps=3))
    return network, network.prefill(batch.reference, Context(batch.context.tokens), batch.proprio, HORIZON), plan


def written_out(network, noise, cache, plan, known):
    """Committed rows (rows, D) put before the others at every step."""
    rows, actions, known = len(known), noise, network.with_padding(known)[None]
    for timestep, delta in zip(plan.timesteps, plan.deltas, strict=True):
        s = timestep / TIMESTEPS
        actions = torch.cat([(1 - s) * known + s * noise[:, :rows], actions[:, rows:]], 1)
        actions = actions + network.velocity(actions, timestep[None], cache) * delta
    return network.without_padding(torch.cat([known, actions[:, rows:]], 1))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, HORIZON), st.integers(0, 2**31 - 1))
def test_frozen_rows_are_those_of_the_plain_loop_however_many(prefilled, rows, seed):
    network, cache, plan = prefilled
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, HORIZON, network.config.action_dim, generator=generator)
    actions = torch.randn(HORIZON, network.config.action_dim - 1, generator=generator)
    wanted = written_out(network, noise, cache, plan, actions[:rows])
    actions[rows:] = torch.nan  # what is not committed is not looked at
    found = denoise_frozen(network, noise, cache, plan, Committed(actions, soft_weights(HORIZON, rows, rows), rows))
    assert torch.equal(found[0, :rows], actions[:rows])
    assert torch.allclose(found, wanted, atol=2e-5, rtol=1e-5)
    if not rows:
        assert torch.equal(found, network.denoise(noise, cache, plan)), "to the bit"
