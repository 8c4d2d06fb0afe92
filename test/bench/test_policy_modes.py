# SPDX-License-Identifier: Apache-2.0
"""The trained tiny policy under each way of sampling: spread, deadline, committed rows, sweeps."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.core.schema import Observation
from imagewam_ros.model.checkpoint import load_checkpoint
from imagewam_ros.model.sampler import SamplerConfig, steps_within
from imagewam_ros.model.wam import ImageWam
from imagewam_ros.policy import Policy

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(find_checkpoint("tiny"))


@pytest.fixture(scope="module")
def observation():
    robot = load_embodiment("sim_cell")
    rng = np.random.default_rng(0)
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in robot.cameras}
    middle = (robot.limits.lower + robot.limits.upper) / 2
    return Observation(10**9, images, middle, "lift the tray")


def policy(checkpoint, clock=None, **sampling):
    given = {} if clock is None else {"clock": clock}
    return Policy(
        checkpoint.model, checkpoint.contract, checkpoint.statistics, sampling=SamplerConfig(**sampling), **given
    )


def test_same_seed_gives_the_same_bits_every_time(checkpoint, observation):
    one = policy(checkpoint)
    first = one.infer(observation, seed=3).positions
    assert all(np.array_equal(one.infer(observation, seed=3).positions, first) for _ in range(9))


def test_several_samples_give_a_spread_around_the_same_chunk(checkpoint, observation):
    plain, several = policy(checkpoint).infer(observation, seed=3), policy(checkpoint, samples=4)
    chunk = several.infer(observation, seed=3)
    assert np.allclose(chunk.positions, plain.positions, atol=1e-5) and plain.spread.size == 0
    assert chunk.spread.shape == (14,) and (chunk.spread > 0).all()
    assert np.array_equal(several.infer(observation, seed=3).spread, chunk.spread)


def test_picard_gives_the_sequential_chunk(checkpoint, observation):
    plain = policy(checkpoint).infer(observation, seed=3)
    swept = policy(checkpoint, denoiser="picard", tolerance=1e-3).infer(observation, seed=3)
    assert np.abs(swept.positions - plain.positions).max() < 2e-3
    exact = policy(checkpoint, denoiser="picard", tolerance=0.0).infer(observation, seed=3)
    assert np.array_equal(exact.positions, plain.positions) and exact.denoise_steps == 10


def test_deadline_chooses_steps_from_measured_times(checkpoint, observation):
    ticks = SimpleNamespace(now=0.0)

    def clock():
        ticks.now += 0.010
        return ticks.now

    hurried = policy(checkpoint, clock, deadline_ms=20.0, fewest_steps=3)
    assert hurried.infer(observation).denoise_steps == 10  # nothing was measured yet
    assert hurried.infer(observation).denoise_steps == 10  # a step takes 1 ms of this clock, the prefill 10
    tight = policy(checkpoint, clock, deadline_ms=16.0, fewest_steps=3)
    # the first draw with each number of steps counts for nothing: it may hold a compilation
    assert [tight.infer(observation).denoise_steps for _ in range(5)] == [10, 10, 6, 6, 5]


def test_fewer_steps_are_recorded_and_more_are_refused(checkpoint, observation):
    few, all_of_them = policy(checkpoint, steps=4), policy(checkpoint)
    chunk = few.infer(observation, seed=3)
    assert chunk.denoise_steps == 4
    assert 0 < np.abs(chunk.positions - all_of_them.infer(observation, seed=3).positions).max() < 0.5
    with pytest.raises(ConfigError, match="the contract has 10 steps, 11 were asked for; use 0 for all"):
        policy(checkpoint, steps=11)


class Counting:
    """A text encoder that counts what it encodes."""

    def __init__(self, text):
        self.text, self.encoded = text, []

    def encode(self, prompt):
        self.encoded.append(prompt)
        return self.text.encode(prompt)

    def condition(self, tokens, images):
        return self.text.condition(tokens, images)


def test_an_instruction_is_encoded_once(checkpoint, observation):
    model = checkpoint.model
    text = Counting(model.text)
    counted = ImageWam(model.network, model.codec, text, model.spec, "{task}", model.horizon)
    one = Policy(counted, checkpoint.contract, checkpoint.statistics)
    for words in ("lift the tray", "lift the tray", "put it down", "put it down", "put it down"):
        one.infer(replace(observation, instruction=words))
    assert text.encoded == ["lift the tray", "put it down"]


class Hungry:
    """A codec that never has enough memory."""

    def encode(self, images):
        return torch.empty(1 << 60, dtype=torch.uint8)


def test_too_little_memory_says_what_to_change(checkpoint, observation):
    model = checkpoint.model
    greedy = ImageWam(model.network, Hungry(), model.text, model.spec, model.prompt, model.horizon)
    one = Policy(greedy, checkpoint.contract, checkpoint.statistics)
    with pytest.raises(ConfigError, match="out of memory on cpu .*; use fewer samples, the sequential denoiser or"):
        one.infer(observation)


def test_steps_within():
    assert [steps_within(left, 1.0, 4, 10) for left in (-1.0, 3.0, 7.5, 99.0)] == [4, 4, 7, 10]


@pytest.mark.parametrize("chunking", ["frozen", "guided"])
def test_chunk_begins_with_the_committed_rows(checkpoint, observation, chunking):
    one = policy(checkpoint, chunking=chunking)
    period_ns = one.contract.period_ns
    running = one.infer(observation, seed=1)
    assert running.committed_rows == 0
    later = replace(observation, stamp_ns=observation.stamp_ns + 5 * period_ns, positions=running.positions[4])
    chunk = one.infer(later, seed=2, running=running, delay_ns=round(3.2 * period_ns))
    free = one.infer(later, seed=2)
    assert chunk.committed_rows == 3 and free.committed_rows == 0
    away = [np.abs(c.positions[:3] - running.positions[5:8]).max() for c in (chunk, free)]
    assert away[0] < (1e-5 if chunking == "frozen" else away[1])


def test_committed_rows_are_taken_by_time(checkpoint, observation):
    """Between the rows of the running chunk they are interpolated; past its end none is committed."""
    one = policy(checkpoint, chunking="frozen")
    period_ns = one.contract.period_ns
    running = one.infer(observation, seed=1)
    half = replace(observation, stamp_ns=observation.stamp_ns + 5 * period_ns // 2)
    chunk = one.infer(half, seed=2, running=running, delay_ns=round(2.1 * period_ns))
    wanted = (running.positions[2:4] + running.positions[3:5]) / 2
    assert chunk.committed_rows == 2 and np.allclose(chunk.positions[:2], wanted, atol=1e-5)
    gone = replace(observation, stamp_ns=observation.stamp_ns + 40 * period_ns)
    assert one.infer(gone, seed=2, running=running, delay_ns=period_ns).committed_rows == 0
    earlier = replace(observation, stamp_ns=observation.stamp_ns - period_ns)
    assert one.infer(earlier, seed=2, running=running, delay_ns=3 * period_ns).committed_rows == 0


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"denoiser": "euler"}, "denoiser must be one of sequential, picard, found 'euler'"),
        ({"chunking": "soft"}, "chunking must be one of none, frozen, guided, found 'soft'"),
        ({"steps": -1}, "steps must be positive, or 0 for the contract's, found -1"),
        ({"samples": 0}, "samples and fewest_steps must be positive"),
        ({"samples": 2, "chunking": "frozen"}, "exclude each other; choose one"),
        ({"denoiser": "picard", "deadline_ms": 5.0}, "a deadline chooses sequential steps"),
    ],
)
def test_wrong_sampling_is_refused(wrong, text):
    with pytest.raises(ConfigError, match=text):
        SamplerConfig(**wrong)
