# SPDX-License-Identifier: Apache-2.0
"""Numbers of a training run: what contradicts itself is refused, and processes share a batch fairly."""

import dataclasses
from itertools import pairwise

import pytest
import small_networks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.protocol import Context
from imagewam_ros.training.presets import PRESETS, TrainConfig, find_preset
from imagewam_ros.training.rates import cosine
from imagewam_ros.training.team import Team, like, part_of, whole

NETWORK = small_networks.network("flux2")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"steps": 0}, "steps, batch and draws are positive, targets at most batch"),
        ({"batch": 0}, "steps, batch and draws are positive"),
        ({"draws": 0}, "steps, batch and draws are positive"),
        ({"targets": 33}, "targets at most batch"),
        ({"targets": -1}, "targets at most batch"),
        ({"prefix_at_zero": False}, "every sample needs a target: set targets to batch"),
        ({"precision": "float16"}, "precision is float32 or bfloat16, found 'float16'"),
        ({"lora_rank": -1}, "lora_rank is not negative"),
        ({"learning_rate": -1e-3}, "learning_rate is not negative, found -0.001"),
        ({"held_out": 1.0}, "held_out and average are at least 0 and below 1"),
        ({"average": -0.1}, "held_out and average are at least 0 and below 1"),
    ],
)
def test_contradictions_are_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        TrainConfig(**change)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_consistent(name):
    preset = find_preset(name)
    assert preset.spec.network.action_dim == preset.spec.network.proprio_dim == 14
    assert preset.horizon <= preset.spec.network.max_horizon
    assert preset.tile % 16 == 0 and "{task}" in preset.prompt
    assert dataclasses.replace(preset.training) == preset.training


def test_only_the_tiny_presets_need_no_pretrained_weights():
    assert [name for name in PRESETS if not find_preset(name).needs_base] == ["tiny", "tiny_multitask"]


def test_presets_drive_the_simulated_robot():
    assert len(load_embodiment("sim_cell").joint_names) == find_preset("tiny").spec.network.action_dim


@given(st.integers(1, 5000), st.integers(0, 500), st.floats(0, 0.5))
def test_rate_is_between_nothing_and_the_peak_and_ends_at_the_floor(steps, warmup, floor):
    rates = [cosine(step, steps, warmup, floor) for step in range(0, steps, max(1, steps // 50))]
    assert all(0 < rate <= 1 + 1e-12 or floor == 0 for rate in rates)
    if steps > warmup:
        assert cosine(steps, steps, warmup, floor) == pytest.approx(floor, abs=1e-9)


@given(st.integers(100, 2000), st.integers(1, 50))
def test_rate_rises_and_then_only_falls(steps, warmup):
    rates = [cosine(step, steps, warmup, 0.03) for step in range(steps)]
    top = rates.index(max(rates))
    assert top <= warmup + 1
    assert all(a <= b + 1e-12 for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[top:]))


def numbered(samples, targets, draws):
    """A batch in which every value says which sample and draw it belongs to."""
    batch = small_networks.batch(NETWORK, samples)

    def tag(count, like, each=1):
        number = torch.arange(count) // each
        return number.view(-1, *(1,) * (like.ndim - 1)).float().expand(count, *like.shape[1:]).clone()

    return dataclasses.replace(
        batch,
        reference=tag(samples, batch.reference), proprio=tag(samples, batch.proprio),
        actions=tag(samples, batch.actions), action_noise=tag(samples * draws, batch.action_noise, draws),
        action_timestep=tag(samples * draws, batch.action_timestep, draws),
        context=Context(tag(samples, batch.context.tokens), batch.context.mask),
        target=tag(targets, batch.target) if targets else None,
        target_noise=tag(targets, batch.target) if targets else None,
        target_timestep=tag(targets, batch.target_timestep) if targets else None,
    )  # fmt: skip


@settings(max_examples=15)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3))
def test_parts_hold_every_sample_once_with_its_own_noise(size, share, targets, draws):
    samples, targets = size * share, size * min(targets, share)
    whole_batch = numbered(samples, targets, draws)
    seen, seen_targets = [], []
    for rank in range(size):
        part = part_of(whole_batch, Team(rank, size))
        mine = part.proprio[:, 0].tolist()
        seen += mine
        assert part.actions[:, 0, 0].tolist() == part.context.tokens[:, 0, 0].tolist() == mine
        assert part.action_noise[:, 0, 0].tolist() == [n for n in mine for _ in range(draws)]
        if targets:
            assert part.target[:, 0, 0, 0].tolist() == mine[: targets // size], "targets belong to the first samples"
            seen_targets += part.target_timestep.tolist()
    assert sorted(seen) == list(range(samples)) and sorted(seen_targets) == list(range(targets))


@pytest.mark.parametrize(("size", "targets"), [(3, 0), (2, 3), (4, 2)])
def test_unequal_shares_are_refused(size, targets):
    text = f"{size} processes cannot share 4 samples with {targets} targets equally; choose a batch and targets that"
    with pytest.raises(ConfigError, match=text):
        part_of(numbered(4, targets, 1), Team(0, size))


def test_one_process_has_the_whole_batch_and_waits_for_nobody():
    batch, team = numbered(2, 2, 1), Team()
    assert part_of(batch, team) is batch and team.leads
    team.wait()
    assert team.mean(torch.tensor([2.0])).tolist() == [2.0]


def test_one_text_serves_every_part():
    batch = numbered(4, 0, 1)
    shared = dataclasses.replace(batch, context=Context(batch.context.tokens[:1]))
    assert part_of(shared, Team(1, 2)).context.tokens.shape[0] == 1


def test_plain_tensors_are_whole_already_and_copies():
    tensor = torch.arange(4.0)
    assert torch.equal(whole(tensor), tensor)
    copy = like(tensor, torch.zeros(4))
    copy[0] = 9
    assert tensor[0] == 0
