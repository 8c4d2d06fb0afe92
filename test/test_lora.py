# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: where they go, what they train, and that merging changes no answer."""

import pytest
import small_networks
import torch
from torch import nn

from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.model.lora import has_lora, merged
from imagewam_ros.training.lora import SUFFIXES, inject, merge


@pytest.fixture
def network():
    pytest.importorskip("peft")
    return small_networks.network("flux2")


def answer(network):
    with torch.no_grad():
        return network.joint_forward(small_networks.batch(network)).action


def test_fresh_adapters_change_nothing(network):
    before = answer(network)
    inject(network, rank=2, alpha=4.0)
    assert torch.allclose(answer(network), before, atol=1e-6)


def test_only_adapters_and_the_new_ends_are_trained(network):
    inject(network, rank=2, alpha=4.0)
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert any("lora_A" in name for name in trained)
    rest = {name for name in trained if "lora_" not in name}
    assert all(name.startswith(("proprio_encoder", "action.action_encoder", "action.head")) for name in rest)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) < sum(
        p.numel() for p in network.parameters()
    )


def test_merged_adapters_answer_the_same_with_the_old_keys(network):
    keys = set(network.state_dict())
    inject(network, rank=2, alpha=4.0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    adapted = answer(network)
    merge(network)
    assert set(network.state_dict()) == keys
    assert torch.allclose(answer(network), adapted, atol=1e-5)


def test_a_network_without_such_layers_is_refused():
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match=f"no layer of this network ends in one of {SUFFIXES[0]}, .*train it in full"):
        inject(nn.Sequential(nn.Linear(2, 2)), 2, 4.0)


def adapters(rank=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {
        "a.base.weight": torch.randn(4, 3, generator=generator).to(dtype),
        "a.base.bias": torch.randn(4, generator=generator).to(dtype),
        "a.lora_A.weight": torch.randn(rank, 3, generator=generator).to(dtype),
        "a.lora_B.weight": torch.randn(4, rank, generator=generator).to(dtype),
        "other": torch.ones(1),
    }


@pytest.mark.parametrize(("rank", "alpha"), [(1, 1.0), (2, 8.0), (3, 0.5)])
def test_official_adapters_are_the_formula(rank, alpha, tmp_path):
    state = adapters(rank)
    found = merged(state, alpha, tmp_path / "model.pt")
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    wanted = x @ state["a.base.weight"].T + alpha / rank * (x @ state["a.lora_A.weight"].T) @ state["a.lora_B.weight"].T
    assert set(found) == {"a.weight", "a.bias", "other"}
    assert torch.allclose(x @ found["a.weight"].make().T, wanted, atol=1e-5)
    assert torch.equal(found["a.bias"], state["a.base.bias"])


def test_merging_keeps_the_bases_type(tmp_path):
    lazy = merged(adapters(dtype=torch.bfloat16), 1.0, tmp_path)["a.weight"]
    made = lazy.make()
    assert (lazy.shape, lazy.dtype) == (tuple(made.shape), made.dtype) == ((4, 3), torch.bfloat16)


def test_plain_weights_need_no_alpha(tmp_path):
    state = {"a.weight": torch.ones(1)}
    assert not has_lora(state) and merged(state, None, tmp_path) == state


@pytest.mark.parametrize("part", ["base", "lora_B"])
def test_half_an_adapter_is_refused(tmp_path, part):
    state = {name: tensor for name, tensor in adapters().items() if f".{part}." not in name}
    with pytest.raises(CheckpointError, match=rf"model\.pt: adapter of a lacks {part}; save the whole model again"):
        merged(state, 1.0, tmp_path / "model.pt")


def test_alpha_is_never_guessed(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds LoRA adapters but not their alpha; say it \(--lora-alpha"):
        merged(adapters(), None, tmp_path / "model.pt")
