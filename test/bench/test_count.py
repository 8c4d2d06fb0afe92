# SPDX-License-Identifier: Apache-2.0
"""The counter against costs worked out by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from imagewam_ros.bench_cost import MODELS, chunk_cost
from imagewam_ros.bench_reference.costs import PEAKS, roofline_ms, total
from imagewam_ros.bench_reference.count import Cost, Counter
from imagewam_ros.core.errors import ConfigError


def counted(work, *modules):
    return Counter(modules).cost(work)[1]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 8, 4), (5, 16, 3)])
def test_a_linear_layer(device, rows, inputs, outputs):
    layer = nn.Linear(inputs, outputs, bias=False, device=device)
    cost = counted(lambda: layer(torch.zeros(rows, inputs, device=device)), layer)
    assert cost.flops == 2 * rows * inputs * outputs
    assert cost.weight_bytes == 4 * inputs * outputs and cost.cache_bytes == 0


def test_half_precision_reads_half_the_bytes():
    layer = nn.Linear(8, 4, bias=False).bfloat16()
    assert counted(lambda: layer(torch.zeros(1, 8).bfloat16()), layer).weight_bytes == 2 * 32


def test_weights_of_other_modules_do_not_count():
    counted_layer, other = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    x = torch.zeros(1, 4)
    assert counted(lambda: other(counted_layer(x)), counted_layer).weight_bytes == 64


def test_a_weight_used_twice_is_read_twice():
    layer, x = nn.Linear(4, 4, bias=False), torch.zeros(1, 4)
    assert counted(lambda: layer(layer(x)), layer).weight_bytes == 2 * 64


def test_views_are_free():
    x = torch.zeros(4, 6)
    assert counted(lambda: x.view(24).reshape(2, 12)[0].expand(3, 12)).operations == 0
    assert counted(lambda: x + 1).operations == 1


def test_an_embedding_reads_its_rows_only():
    table = nn.Embedding(1000, 8)
    assert counted(lambda: table(torch.tensor([1, 2, 3])), table).weight_bytes == 3 * 8 * 4


def test_attention_reads_the_watched_cache():
    key, value = torch.zeros(1, 2, 10, 4), torch.zeros(1, 2, 10, 4)
    counter = Counter(())
    query = torch.zeros(1, 2, 3, 4)
    _, before = counter.cost(lambda: F.scaled_dot_product_attention(query, key, value))
    counter.watch((key, value))
    _, after = counter.cost(lambda: F.scaled_dot_product_attention(query, key, value))
    assert (before.cache_bytes, after.cache_bytes) == (0, 2 * 80 * 4)


def test_concatenating_the_cache_reads_and_writes_it():
    key, new = torch.zeros(1, 2, 10, 4), torch.zeros(1, 2, 1, 4)
    counter = Counter(())
    counter.watch((key,))
    _, cost = counter.cost(lambda: torch.cat([key, new], 2))
    assert cost.cache_bytes == 2 * 88 * 4


def test_costs_add_up():
    cost = Cost(1, 2, 3, 4)
    assert cost + cost == Cost(2, 4, 6, 8) and cost.nbytes == 7
    phases = {"a": cost, "b": Cost(10, 10, 10, 10)}
    assert total(phases) == Cost(11, 12, 13, 14) and total(phases, without=("b",)) == cost


def test_the_result_is_the_works_own():
    found, cost = Counter(()).cost(lambda: torch.ones(2) @ torch.ones(2))
    assert found == 2 and cost.operations >= 1


@pytest.mark.parametrize("device", PEAKS)
def test_the_roofline_is_the_slower_of_both(device):
    tflops, tbytes = PEAKS[device]
    compute, memory = Cost(flops=int(tflops * 1e9)), Cost(weight_bytes=int(tbytes * 1e9))
    assert roofline_ms({"x": compute}, f"NVIDIA {device}") == pytest.approx(1.0, rel=1e-6)
    assert roofline_ms({"x": memory}, device) == pytest.approx(1.0, rel=1e-6)
    assert roofline_ms({"x": compute, "y": memory}, device) == pytest.approx(2.0, rel=1e-6)
    assert roofline_ms({"x": compute + memory}, device) == pytest.approx(1.0, rel=1e-6)


def test_unknown_devices_have_no_roofline():
    assert roofline_ms({"x": Cost(flops=1)}, "abacus") is None


@pytest.mark.parametrize("model", MODELS)
def test_unknown_layouts_are_refused_before_anything_is_built(model):
    with pytest.raises(ConfigError, match="unknown layout 'compact'; .*known: compact_288x256, legacy_384x320"):
        chunk_cost(model, "compact")
