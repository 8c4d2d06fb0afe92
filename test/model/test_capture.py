# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from imagewam_ros.core.contract import Denoising, Mosaic, Tile
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.capture import Attention, camera_mass, capture, capture_chunk, mass_on
from imagewam_ros.model.reference_flux2 import Flux2Reference
from imagewam_ros.model.reference_omnigen2 import OmniGen2Reference
from imagewam_ros.model.reference_ovis_u1 import OvisU1Reference

MOSAIC = Mosaic(
    48, 64, (Tile("head", 0, 0, 32, 64), Tile("left_wrist", 32, 0, 16, 32), Tile("right_wrist", 32, 32, 16, 32))
)
REFERENCES = {"flux2": Flux2Reference, "ovis_u1": OvisU1Reference, "omnigen2": OmniGen2Reference}


@pytest.mark.parametrize("variant", REFERENCES)
def test_weights_are_those_of_the_action_expert(data, variant):
    reference = REFERENCES[variant](data / f"{variant}_tiny")
    found = capture(reference.network, reference.cache, reference.start, 1000.0, MOSAIC)
    layers, heads = found.weights.shape[:2]
    assert heads == reference.config["heads"]
    assert layers == reference.config.get(
        "layers", reference.config.get("double", 0) + reference.config.get("single", 0)
    )
    assert np.allclose(found.weights.sum(-1), 1, atol=1e-5)
    mass = camera_mass(found, MOSAIC)
    assert sum(mass.values()) == pytest.approx(1, abs=1e-5)
    assert set(mass) == {"head", "left_wrist", "right_wrist", "text", "action"}


def test_capturing_changes_no_action(flux2):
    with torch.no_grad():
        plain = flux2.network.velocity(flux2.start, torch.tensor([500.0]), flux2.cache)
        seen = flux2.network.velocity(flux2.start, torch.tensor([500.0]), flux2.cache.captured())
    assert torch.equal(plain, seen)


def test_pad_tokens_are_never_attended(flux2):
    found = capture(flux2.network, flux2.cache, flux2.start, 500.0, MOSAIC)
    pads = (~flux2.packed(flux2.context).mask[0]).numpy()
    assert found.weights[..., : found.text][..., pads].max() == 0


def looking_at(row, column):
    weights = np.zeros((2, 2, 3, 1 + 12 + 3), dtype=np.float32)
    weights[..., 1 + 4 * row + column] = 1
    return Attention(weights, 3, 4, 3)


def test_mass_lands_where_the_actions_look():
    assert camera_mass(looking_at(2, 1), MOSAIC)["left_wrist"] == 1
    assert camera_mass(looking_at(0, 3), MOSAIC)["head"] == 1
    marked = np.zeros((48, 64), dtype=bool)
    marked[32:48, 16:24] = True
    assert mass_on(looking_at(2, 1).heat(), marked) == (0.5, pytest.approx(128 / 3072))


def test_mask_of_another_size_is_refused():
    with pytest.raises(ConfigError, match="must have the mosaic's size 48x64, found 10x10"):
        mass_on(looking_at(0, 0).heat(), np.zeros((10, 10), dtype=bool))


def test_pixels_marked_in_part_count_in_part():
    marked = np.zeros((48, 64), dtype=np.float32)
    marked[32:48, 16:32] = 0.25
    assert mass_on(looking_at(2, 1).heat(), marked) == (0.25, pytest.approx(64 / 3072))


def test_layers_and_heads_can_be_chosen():
    weights = np.zeros((2, 3, 3, 16), dtype=np.float32)
    weights[1, 2, :, 1] = 1
    both = Attention(weights, 3, 4, 3)
    assert both.heat()[0, 0] == pytest.approx(1 / 6)
    assert both.of(layers=[1]).heat()[0, 0] == pytest.approx(1 / 3)
    assert both.of([1], [2]).heat()[0, 0] == 1 and both.of([0], [2]).heat().max() == 0
    with pytest.raises(ConfigError, match="no layer 2; the action expert has layers 0 to 1"):
        both.of([2])
    with pytest.raises(ConfigError, match="no head -1; the action expert has heads 0 to 2"):
        both.of(heads=[-1])


@pytest.mark.parametrize("variant", REFERENCES)
def test_attention_of_a_chunk_is_the_mean_over_its_steps(data, variant):
    reference = REFERENCES[variant](data / f"{variant}_tiny")
    network, cache, plan = reference.network, reference.cache, reference.network.plan(Denoising(3))
    found = capture_chunk(network, cache, reference.start, plan, MOSAIC)
    actions, total = reference.start, 0
    for timestep, delta in zip(plan.timesteps, plan.deltas, strict=True):
        total = total + capture(network, cache, actions, float(timestep), MOSAIC).weights
        with torch.no_grad():
            actions = actions + network.velocity(actions, timestep[None], cache) * delta
    assert np.allclose(found.weights, total / 3, atol=1e-5)
