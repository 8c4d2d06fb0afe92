# SPDX-License-Identifier: Apache-2.0
"""How many draws, which steps, in how much time: one prefix, several ways to a chunk."""

from types import SimpleNamespace

import pytest
import small_networks
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import DIMS, HORIZON

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.chunking import Committed, soft_weights
from imagewam_ros.model.flow import action_noise
from imagewam_ros.model.protocol import Context
from imagewam_ros.model.sampler import SEED_STRIDE, Sampler, SamplerConfig, steps_within


@pytest.fixture(scope="module")
def network():
    return small_networks.network("flux2")


@pytest.fixture(scope="module")
def prefix(network):
    batch = small_networks.batch(network, samples=1)
    context = Context(batch.context.tokens)

    def fill(room=lambda cache: cache):
        with torch.no_grad():
            cache = room(network.prefill(batch.reference, context, batch.proprio, HORIZON))
            return network.prefill(batch.reference, context, batch.proprio, HORIZON, cache=cache)

    return fill


def sampler(network, clock=None, steps=6, **options):
    chosen = SamplerConfig(**options)
    return Sampler(network, Denoising(steps), HORIZON, chosen, *([clock] if clock else []))


def test_one_draw_is_the_networks_own_answer(network, prefix):
    found = sampler(network).draw(3, prefix())
    wanted = network.denoise(action_noise(3, HORIZON, DIMS), prefix(), network.plan(Denoising(6)))
    assert torch.equal(found.actions, wanted) and (found.steps, found.fell_back) == (6, False)


def test_the_seed_decides(network, prefix):
    one, cache = sampler(network), prefix()
    assert torch.equal(one.draw(3, cache).actions, one.draw(3, cache).actions)
    assert not torch.equal(one.draw(3, cache).actions, one.draw(4, cache).actions)


def test_several_draws_are_the_single_ones_of_their_seeds(network, prefix):
    several = sampler(network, samples=3)
    found = several.draw(5, prefix(several.room)).actions
    single = sampler(network)
    for i in range(3):
        alone = single.draw(5 + i * SEED_STRIDE, prefix()).actions[0]
        assert torch.allclose(found[i], alone, atol=1e-5)
    assert found.std(0).max() > 1e-3, "draws differ, or their spread would say nothing"


def test_sweeps_come_as_near_as_they_promise(network, prefix):
    exact = sampler(network).draw(1, prefix()).actions
    parallel = sampler(network, denoiser="picard", sweeps=6, tolerance=1e-4)
    found = parallel.draw(1, prefix(parallel.room))
    assert torch.allclose(found.actions, exact, atol=1e-4)


def test_sweeps_without_tolerance_fall_back_and_say_so(network, prefix):
    exact = sampler(network).draw(1, prefix()).actions
    strict = sampler(network, denoiser="picard", sweeps=3, tolerance=0.0)
    found = strict.draw(1, prefix(strict.room))
    assert found.fell_back and torch.allclose(found.actions, exact, atol=1e-5)


def test_lanes_are_made_only_where_they_are_needed(network, prefix):
    plain = prefix()
    assert sampler(network).room(plain) is plain
    assert sampler(network).lanes == 1
    assert sampler(network, samples=4).lanes == 4
    assert sampler(network, denoiser="picard").lanes == 6


@pytest.mark.parametrize("chunking", ["frozen", "guided"])
def test_committed_rows_condition_the_chunk(network, prefix, chunking):
    committed = Committed(torch.full((HORIZON, DIMS), 0.3), soft_weights(HORIZON, 2, 4), 2)
    free = sampler(network).draw(0, prefix()).actions
    bound = sampler(network, chunking=chunking).draw(0, prefix(), committed=committed).actions
    assert (bound[0, :2] - 0.3).abs().mean() < 0.5 * (free[0, :2] - 0.3).abs().mean()
    ignored = sampler(network).draw(0, prefix(), committed=committed).actions
    assert torch.equal(ignored, free), "chunking none takes no notice"
    assert torch.equal(sampler(network, chunking=chunking).draw(0, prefix()).actions, free), "nothing committed"


def ticking(step_s):
    """A clock that advances by step_s whenever it is read."""
    state = SimpleNamespace(now=0.0)

    def clock():
        state.now += step_s
        return state.now

    return clock


def test_deadline_chooses_the_steps_that_fit(network, prefix):
    """Reading the clock costs 60 ms, so six steps seem to take 10 ms each."""
    limited = sampler(network, ticking(0.06), deadline_ms=45.0, fewest_steps=2)
    cache = prefix()
    assert limited.draw(0, cache).steps == 6, "nothing is measured yet"
    assert limited.draw(0, cache).steps == 6, "the first was not counted"
    assert limited.draw(0, cache, started_s=0.30).steps == 4, "started when its clock was read"
    fewer = sampler(network, ticking(0.06), deadline_ms=45.0, fewest_steps=2)
    for _ in range(2):
        fewer.draw(0, cache)
    assert fewer.draw(0, cache, started_s=0.30 - 1.0).steps == 2, "late already: the fewest"


class Slow:
    """A clock in whose time a kind of draw (length of text, steps) takes ten seconds once, later 10 ms per step."""

    def __init__(self, network):
        self.now, self.seen, self._denoise = 0.0, set(), network.denoise

    def __call__(self):
        return self.now

    def denoise(self, noise, cache, plan):
        kind = cache.prefix_length, len(plan.action)
        self.now += 0.01 * len(plan.action) if kind in self.seen else 10.0
        self.seen.add(kind)
        return self._denoise(noise, cache, plan)


def test_the_first_draw_of_each_length_and_number_of_steps_is_not_measured():
    network = small_networks.network("flux2")
    batch, clock = small_networks.batch(network, samples=1), Slow(network)
    network.denoise = clock.denoise
    with torch.no_grad():
        caches = [
            network.prefill(batch.reference, Context(batch.context.tokens[:, :length]), batch.proprio, HORIZON)
            for length in (3, 4)
        ]
    limited = sampler(network, clock, deadline_ms=45.0, fewest_steps=2)
    limited.rehearse(caches[0])
    found = [limited.draw(0, cache, clock()).steps for cache in (*caches, *caches)]
    assert found == [4, 4, 4, 4], "ten seconds for a draw would have left the fewest"
    assert clock.seen == {(cache.prefix_length, 4) for cache in caches} | {(caches[0].prefix_length, 6)}


@pytest.mark.parametrize("options", [{}, {"chunking": "frozen"}, {"chunking": "guided"}, {"samples": 2}])
def test_a_rehearsal_changes_no_answer(network, prefix, options):
    plain, rehearsed = sampler(network, **options), sampler(network, deadline_ms=1e12, **options)
    rehearsed.rehearse(prefix(rehearsed.room))
    wanted, found = (each.draw(3, prefix(each.room)).actions for each in (plain, rehearsed))
    assert torch.equal(found, wanted)


def test_fewer_steps_are_a_schedule_of_their_own(network, prefix):
    limited = sampler(network, ticking(0.06), deadline_ms=45.0, fewest_steps=2)
    cache = prefix()
    for _ in range(2):
        limited.draw(0, cache)
    found = limited.draw(7, cache)
    assert torch.equal(found.actions, sampler(network, steps=found.steps).draw(7, cache).actions)


@given(st.floats(-1, 1), st.floats(1e-4, 0.1), st.integers(1, 10), st.integers(1, 10))
def test_steps_stay_between_fewest_and_most(left_s, step_s, fewest, most):
    found = steps_within(left_s, step_s, fewest, most)
    assert min(fewest, most) <= found <= most
    if min(fewest, most) < found:
        assert found * step_s <= left_s + 1e-9


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"denoiser": "heun"}, "denoiser must be one of sequential, picard, found 'heun'"),
        ({"chunking": "soft"}, "chunking must be one of none, frozen, guided, found 'soft'"),
        ({"samples": 0}, "samples and fewest_steps must be positive"),
        ({"deadline_ms": -1.0}, "deadline_ms and tolerance not negative"),
        ({"samples": 2, "denoiser": "picard"}, "the picard denoiser and chunking exclude each other; choose one"),
        ({"samples": 2, "chunking": "frozen"}, "exclude each other"),
        ({"denoiser": "picard", "chunking": "guided"}, "exclude each other"),
        ({"denoiser": "picard", "deadline_ms": 5.0}, "a deadline chooses sequential steps; use denoiser sequential"),
    ],
)
def test_contradictions_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        SamplerConfig(**options)


@pytest.mark.parametrize("sweeps", [2, 7])
def test_number_of_sweeps_must_fit_the_schedule(network, sweeps):
    with pytest.raises(ConfigError, match=rf"sweeps must be 3 to the number of steps \(6\), found {sweeps}"):
        sampler(network, denoiser="picard", sweeps=sweeps)
