# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model import flow
from imagewam_ros.model.protocol import Context, JointBatch, JointOutput


def batch(**changes):
    generator = torch.Generator().manual_seed(0)
    values = {
        "reference": torch.zeros(2, 4, 1, 1),
        "context": Context(torch.zeros(1, 1, 4)),
        "proprio": torch.zeros(2, 3),
        "actions": torch.randn(2, 5, 3, generator=generator),
        "action_noise": torch.randn(4, 5, 3, generator=generator),
        "action_timestep": torch.tensor([500.0, 250.0, 500.0, 900.0]),
    }
    return JointBatch(**{**values, **changes})


def test_exact_schedule_is_the_published_one():
    times = [1.0, 0.978261, 0.952381, 0.921053, 0.882353, 0.833333, 0.769231, 0.681818, 0.555556, 0.357143]
    found = flow.schedule(10, 5.0)
    assert torch.allclose(found.timesteps / 1000, torch.tensor(times), atol=1e-6)
    assert found.deltas.sum() == pytest.approx(-1.0, abs=1e-6)


def test_rounded_schedule_is_that_of_released_models():
    found = flow.schedule(10, 5.0, "bfloat16")
    assert found.timesteps.tolist() == [1000, 980, 952, 920, 884, 832, 768, 680, 556, 358]
    assert found.deltas.sum() == pytest.approx(-0.99976, abs=1e-5)


def test_unknown_time_grid_is_refused():
    with pytest.raises(ConfigError, match="time_grid must be float32 or bfloat16, found 'float16'"):
        flow.schedule(10, 5.0, "float16")


def test_noising_keeps_the_ends():
    clean, noise = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(flow.noised(clean, noise, torch.tensor([0.0, 0.0])), clean)
    assert torch.equal(flow.noised(clean, noise, torch.tensor([1000.0, 1000.0])), noise)


def test_euler_on_the_true_velocity_returns_the_data():
    clean, x = torch.randn(1, 4, 2), torch.randn(1, 4, 2)
    velocity = x - clean  # noise - data is constant along the straight path
    for delta in flow.schedule(7, 3.0).deltas:
        x = x + velocity * delta
    assert torch.allclose(x, clean, atol=1e-6)


def test_weight_has_mean_one_over_the_shifted_grid():
    grid = 1000 * flow.shifted(torch.linspace(1, 0, 1001)[:-1], 5.0)
    assert flow.loss_weight(grid, 5.0).mean() == pytest.approx(1.0, abs=1e-5)
    assert flow.loss_weight(torch.tensor([500.0]), 5.0).item() == pytest.approx(2.076, abs=1e-3)


def test_drawn_timesteps_repeat_and_stay_in_range():
    first = flow.draw_timesteps(100, 5.0, torch.Generator().manual_seed(3))
    assert torch.equal(first, flow.draw_timesteps(100, 5.0, torch.Generator().manual_seed(3)))
    assert first.min() >= 0 and first.max() <= 1000 and first.mean() > 600  # shift 5 leans to noise


def test_perfect_velocity_costs_nothing():
    b = batch()
    velocity = b.action_noise - b.actions.repeat_interleave(2, 0)
    assert flow.losses(JointOutput(velocity, None), b).total == 0


def test_padded_steps_and_dims_do_not_count():
    steps = torch.tensor([[False, False, True, True, True], [False] * 5])
    dims = torch.tensor([[False, True, False], [False] * 3])
    b = batch(action_is_pad=steps, action_dim_is_pad=dims)
    velocity = b.action_noise - b.actions.repeat_interleave(2, 0)
    spoiled = velocity.clone()
    spoiled[:2, 2:] += 7.0
    spoiled[:2, :, 1] -= 3.0
    assert flow.action_loss(spoiled, b) == 0
    assert flow.action_loss(spoiled, batch()) > 1


def test_total_is_half_the_image_loss_and_the_action_loss():
    b = batch(
        target=torch.zeros(1, 4, 1, 1), target_noise=torch.ones(1, 4, 1, 1), target_timestep=torch.tensor([500.0])
    )
    found = flow.losses(JointOutput(torch.zeros(4, 5, 3), torch.zeros(1, 4, 1, 1)), b)
    assert found.video == pytest.approx(flow.loss_weight(torch.tensor([500.0])).item())
    assert found.total == pytest.approx(0.5 * found.video.item() + found.action.item())
