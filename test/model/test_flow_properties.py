# SPDX-License-Identifier: Apache-2.0
"""The schedule, the noising and the weights for any steps, shift and time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.model import flow
from imagewam_ros.model.protocol import Context, JointBatch

STEPS, SHIFTS = st.integers(1, 40), st.floats(0.2, 12.0)


@settings(max_examples=25)
@given(STEPS, SHIFTS)
def test_schedule_goes_from_noise_to_data_without_a_gap(steps, shift):
    found = flow.schedule(steps, shift)
    assert found.timesteps[0] == pytest.approx(flow.TIMESTEPS)
    assert (found.deltas < 0).all() and (found.timesteps.diff() < 0).all()
    ends = found.timesteps / flow.TIMESTEPS + found.deltas
    assert torch.allclose(ends[:-1], found.timesteps[1:] / flow.TIMESTEPS, atol=1e-5)
    assert ends[-1] == pytest.approx(0.0, abs=1e-5)


@settings(max_examples=25)
@given(st.floats(0, 1), SHIFTS)
def test_shift_keeps_the_ends_and_its_inverse_undoes_it(u, shift):
    value = flow.shifted(torch.tensor(u, dtype=torch.float64), shift)
    assert 0 <= value <= 1 + 1e-12
    assert flow.shifted(value, 1 / shift).item() == pytest.approx(u, abs=1e-9)
    ends = flow.shifted(torch.tensor([0.0, 1.0]), shift)
    assert ends.tolist() == pytest.approx([0, 1])


@settings(max_examples=20)
@given(st.floats(0, 1), st.floats(1, 12))
def test_a_shift_above_one_leans_to_noise(u, shift):
    assert flow.shifted(torch.tensor(u, dtype=torch.float64), shift) >= u - 1e-12


@settings(max_examples=25)
@given(st.floats(0, 1000), st.integers(0, 100))
def test_noising_is_linear_and_its_slope_is_the_velocity(timestep, seed):
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)
    times = torch.full((2,), timestep)
    here = flow.noised(clean, noise, times)
    there = flow.noised(clean, noise, torch.zeros(2))
    assert torch.allclose(here - there, timestep / flow.TIMESTEPS * (noise - clean), atol=1e-5)


def test_every_sample_is_noised_by_its_own_time():
    clean, noise = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    found = flow.noised(clean, noise, torch.tensor([0.0, 250.0, 1000.0]))
    assert found[:, 0, 0].tolist() == [0.0, 0.25, 1.0]


def test_half_precision_stays_half_precision():
    assert flow.noised(torch.zeros(1, 2).bfloat16(), torch.ones(1, 2).bfloat16(), torch.tensor([5.0])).dtype == (
        torch.bfloat16
    )


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_the_rounded_grid_is_the_exact_one_within_bfloat16(steps):
    exact, rounded = (flow.schedule(steps, 5.0, grid) for grid in ("float32", "bfloat16"))
    assert torch.allclose(exact.timesteps, rounded.timesteps, rtol=2**-8)
    assert torch.equal(rounded.timesteps, rounded.timesteps.bfloat16().float())
    assert torch.equal(rounded.deltas, rounded.deltas.bfloat16().float())


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_weights_are_a_bell_and_never_negative_on_the_grid(shift):
    grid = flow.TIMESTEPS * flow.shifted(torch.linspace(1, 0, 1001)[:-1], shift)
    weights = flow.loss_weight(grid, shift)
    assert weights.min() >= -1e-6
    assert grid[weights.argmax()] == pytest.approx(500, abs=5)
    low, high = flow.loss_weight(torch.tensor([400.0, 600.0]), shift)
    assert low == pytest.approx(high.item(), abs=1e-6)


def test_the_weight_is_the_formula():
    grid = [1000 * 5 * u / (1 + 4 * u) for u in (1 - i / 1000 for i in range(1000))]
    bell = [math.exp(-2 * ((t - 500) / 1000) ** 2) for t in grid]
    mean = sum(b - min(bell) for b in bell) / 1000
    wanted = (math.exp(-2 * 0.2**2) - min(bell)) / mean
    assert flow.loss_weight(torch.tensor([700.0])).item() == pytest.approx(wanted, rel=1e-4)


def test_noise_is_that_of_its_seed_and_has_unit_variance():
    first = flow.action_noise(4, 100, 50)
    assert first.shape == (1, 100, 50) and first.dtype == torch.float32 and first.device.type == "cpu"
    assert torch.equal(first, flow.action_noise(4, 100, 50))
    assert not torch.equal(first, flow.action_noise(5, 100, 50))
    assert first.mean().abs() < 0.05 and first.std() == pytest.approx(1.0, abs=0.05)


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    flow.action_noise(0, 4, 4)
    flow.draw_timesteps(3, 5.0, torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(1), wanted)


def losses_by_hand(batch, predicted):
    """Loops over samples, steps and dims, as the docstring says it."""
    total, draws = 0.0, len(batch.action_noise) // len(batch.actions)
    for row in range(len(batch.action_noise)):
        sample, steps = row // draws, []
        for t in range(batch.actions.shape[1]):
            if batch.action_is_pad is not None and batch.action_is_pad[sample, t]:
                continue
            dims = [
                (predicted[row, t, d] - batch.action_noise[row, t, d] + batch.actions[sample, t, d]).item() ** 2
                for d in range(batch.actions.shape[2])
                if batch.action_dim_is_pad is None or not batch.action_dim_is_pad[sample, d]
            ]
            steps.append(sum(dims) / max(1, len(dims)))
        weight = flow.loss_weight(batch.action_timestep[row : row + 1]).item()
        total += weight * sum(steps) / max(1, len(steps))
    return total / len(batch.action_noise)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.booleans(), st.booleans(), st.integers(1, 3))
def test_action_loss_equals_the_loop(seed, pad_steps, pad_dims, draws):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    batch = JointBatch(
        reference=torch.zeros(2, 1, 1, 1), context=Context(torch.zeros(1, 1, 1)), proprio=torch.zeros(2, 1),
        actions=draw(2, 4, 3), action_noise=draw(2 * draws, 4, 3),
        action_timestep=torch.rand(2 * draws, generator=generator) * 1000,
        action_is_pad=torch.rand(2, 4, generator=generator) < 0.5 if pad_steps else None,
        action_dim_is_pad=torch.rand(2, 3, generator=generator) < 0.5 if pad_dims else None,
    )  # fmt: skip
    predicted = draw(2 * draws, 4, 3)
    assert flow.action_loss(predicted, batch).item() == pytest.approx(losses_by_hand(batch, predicted), rel=1e-4)
