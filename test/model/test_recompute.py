# SPDX-License-Identifier: Apache-2.0
"""Gradient checkpointing: the same losses and gradients, and less kept until the backward pass."""

import pytest
import torch
from small_networks import BACKBONES, batch, network

from imagewam_ros.model import flow


def forward(backbone, recompute):
    """Loss, and the bytes that its graph keeps for the backward pass."""
    built = network(backbone)
    built.recompute = recompute
    own = {weight.untyped_storage().data_ptr() for weight in built.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    inputs = batch(built)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = flow.losses(built.joint_forward(inputs), inputs).total
    return built, loss, sum(kept.values())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_are_the_same_and_less_is_kept(backbone):
    plain, wanted, much = forward(backbone, recompute=False)
    again, loss, little = forward(backbone, recompute=True)
    assert torch.equal(loss, wanted) and little < 0.6 * much
    for total in (wanted, loss):
        total.backward()
    pairs = zip(plain.named_parameters(), again.parameters(), strict=True)
    for (name, weight), other in pairs:
        assert (weight.grad is None) == (other.grad is None), name
        assert weight.grad is None or torch.allclose(weight.grad, other.grad, rtol=1e-5, atol=1e-7), name
