# SPDX-License-Identifier: Apache-2.0
"""Embeddings, rotations and modulation against their formulas written out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.model import layers


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_time_embedding_is_cosines_then_sines():
    found = layers.time_embedding(torch.tensor([0.25, 1.0]), width=8)
    for row, time in enumerate((0.25, 1.0)):
        phases = [1000 * time / 10000 ** (k / 4) for k in range(4)]
        wanted = [math.cos(p) for p in phases] + [math.sin(p) for p in phases]
        assert torch.allclose(found[row], torch.tensor(wanted), atol=1e-3)


def test_time_zero_is_ones_then_zeros():
    found = layers.time_embedding(torch.zeros(1))
    half = layers.FREQUENCIES // 2
    assert found.shape == (1, layers.FREQUENCIES)
    assert (found[:, :half] == 1).all() and (found[:, half:] == 0).all()


def test_time_embedding_is_float32_whatever_comes_in():
    assert layers.time_embedding(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32


def test_scale_multiplies_the_time():
    near = layers.time_embedding(torch.tensor([0.5]), scale=1.0)
    assert torch.allclose(near, layers.time_embedding(torch.tensor([0.0005]), scale=1000.0), atol=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_rotated_products_depend_on_the_distance_alone(a, b, shift):
    """The property that makes it a relative position: <R(a) q, R(b) k> = <R(a + c) q, R(b + c) k>."""
    query, key = draw(1, 1, 1, 8), draw(1, 1, 1, 8, seed=1)

    def product(i, j):
        tables = [layers.rotation(torch.tensor([[float(p)]]), (8,), 10000.0, torch.float64) for p in (i, j)]
        return (layers.rotate(query, tables[0]) * layers.rotate(key, tables[1])).sum().item()

    assert product(a, b) == pytest.approx(product(a + shift, b + shift), abs=1e-4)


def test_rotation_keeps_lengths_and_undoes_itself():
    ids = torch.tensor([[1.0, 2], [3, 4], [5, 60]])
    table, back = layers.rotation(ids, (4, 6), 2000.0), layers.rotation(-ids, (4, 6), 2000.0)
    x = draw(2, 3, 3, 10)
    turned = layers.rotate(x, table)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.allclose(layers.rotate(turned, back), x, atol=1e-5)


def test_rotation_at_the_origin_is_the_identity():
    x = draw(1, 2, 4, 12)
    assert torch.equal(layers.rotate(x, layers.rotation(torch.zeros(4, 3), (4, 4, 4), 10000.0)), x)


def test_each_axis_turns_its_own_slice():
    x = draw(1, 1, 1, 12)
    for axis in range(3):
        ids = torch.zeros(1, 3)
        ids[0, axis] = 7.0
        changed = (layers.rotate(x, layers.rotation(ids, (4, 4, 4), 10000.0)) != x).flatten()
        assert changed.nonzero().flatten().tolist() == [4 * axis + i for i in range(4)]


def test_rotation_returns_the_type_that_came_in():
    table = layers.rotation(torch.ones(1, 1), (4,), 100.0)
    assert layers.rotate(draw(1, 1, 1, 4).bfloat16(), table).dtype == torch.bfloat16


def test_rotation_per_sample_equals_one_by_one():
    ids = torch.tensor([[[1.0], [2]], [[5], [9]]])
    together = layers.rotation(ids, (6,), 500.0)
    for sample in range(2):
        alone = layers.rotation(ids[sample], (6,), 500.0)
        assert torch.equal(together[sample], alone)


@pytest.mark.parametrize(("rows", "columns", "axes"), [(2, 3, 3), (3, 2, 4), (1, 5, 3)])
def test_grid_is_row_major(rows, columns, axes):
    found = layers.grid_ids(rows, columns, 10, axes)
    assert found.tolist() == [[10.0, r, c] + [0.0] * (axes - 3) for r in range(rows) for c in range(columns)]


def test_tokens_of_latents_follow_the_grid():
    latents = torch.arange(2 * 3 * 2 * 4.0).reshape(2, 3, 2, 4)
    tokens, ids = layers.tokens_of(latents), layers.grid_ids(2, 4, 0, 3).long()
    for n, (_, row, column) in enumerate(ids.tolist()):
        assert torch.equal(tokens[:, n], latents[:, :, row, column])
    assert torch.equal(layers.latents_of(tokens, 2, 4), latents)


@pytest.mark.parametrize("batch", [1, 3])
def test_modulation_with_and_without_a_batch_is_the_formula(batch):
    x, values = draw(batch, 5, 8), draw(batch, 24, seed=1)
    (found,) = layers.modulations(values, 8)
    normal = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    wanted = normal * (1 + values[:, None, 8:16]) + values[:, None, :8]
    assert torch.allclose(layers.modulate(x, found), wanted, atol=1e-5)
    assert torch.equal(found.gate, values[:, None, 16:])


def test_modulations_come_in_threes():
    found = layers.modulations(torch.arange(24.0)[None], 4)
    assert len(found) == 2
    assert found[1].shift.flatten().tolist() == [12, 13, 14, 15]
    assert found[1].scale.flatten().tolist() == [17, 18, 19, 20], "1 + the predicted scale"
    assert found[1].gate.flatten().tolist() == [20, 21, 22, 23]


def test_layer_norm_has_no_mean_and_unit_variance():
    found = layers.layer_norm(100 + 30 * draw(4, 64))
    assert found.mean(-1).abs().max() < 1e-4
    assert torch.allclose(found.var(-1, unbiased=False), torch.ones(4), atol=1e-4)
