# SPDX-License-Identifier: Apache-2.0
"""The imagined goal image: the training forward is its oracle, and untrained weights say so."""

import json

import pytest
import small_networks
import torch

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model import factory, flow
from imagewam_ros.model.checkpoint import read_config, save_checkpoint

IMAGE = torch.linspace(-1, 1, 3 * 32 * 64).reshape(1, 3, 32, 64)


@pytest.mark.parametrize(
    ("backbone", "at_zero"),
    [("flux2", True), ("flux2", False), ("omnigen2", True), ("omnigen2", False), ("ovis_u1", True)],
)
def test_preview_runs_the_prefix_as_training_did(backbone, at_zero):
    """Ovis-U1 at the target's time is left out: there the authors preview with the plain editor."""
    network = small_networks.network(backbone)
    batch = small_networks.batch(network, samples=1, prefix_at_zero=at_zero)
    noised = flow.noised(batch.target, batch.target_noise, batch.target_timestep)
    with torch.no_grad():
        trained = network.joint_forward(batch).video
        inputs = (noised, batch.target_timestep, batch.reference, batch.context, batch.proprio)
        found, other = (network.preview_velocity(*inputs, mode) for mode in (at_zero, not at_zero))
    assert torch.allclose(found, trained, atol=1e-5)
    assert not torch.allclose(other, trained, atol=1e-3)


def test_steps_end_at_the_preview(small_model, contract):
    given = (IMAGE, torch.ones(1, 14), small_model.encode_instruction("lift"), 3, contract.denoising)
    steps = list(small_model.imagine(*given))
    assert len(steps) == contract.denoising.steps
    assert torch.equal(small_model.codec.decode(steps[-1]), small_model.preview(*given))
    assert not torch.equal(steps[0], steps[1])


def test_a_video_head_that_was_never_trained_is_refused(small_model):
    head = small_model.network.video.final_layer.linear.weight
    kept = head.detach().clone()
    try:
        torch.nn.init.zeros_(head)
        with pytest.raises(CheckpointError, match="its video head is all zeros, .* train with targets above 0"):
            small_model.preview(IMAGE, torch.ones(1, 14), small_model.encode_instruction("lift"), 0, Denoising(2))
    finally:
        with torch.no_grad():
            head.copy_(kept)


def test_checkpoint_says_how_the_prefix_was_trained(small_model, contract, statistics, tmp_path):
    save_checkpoint(tmp_path / "p", small_model, contract, statistics)
    path = tmp_path / "p" / "config.json"
    assert read_config(tmp_path / "p")[0] == small_model.spec and small_model.spec.prefix_at_zero
    data = json.loads(path.read_text())
    for value, wanted in ((False, False), (None, True)):
        data["model"]["prefix_at_zero"] = value
        if value is None:
            del data["model"]["prefix_at_zero"]
        path.write_text(json.dumps(data))
        assert read_config(tmp_path / "p")[0].prefix_at_zero is wanted
    with pytest.raises(CheckpointError, match=r"here: model\.prefix_at_zero must be true or false, found 'no'"):
        factory.read_spec({**data["model"], "prefix_at_zero": "no"}, "here")
