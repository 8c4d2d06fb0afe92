# SPDX-License-Identifier: Apache-2.0
"""What trains on a GPU meets no tensor of the CPU: shown by torch's "meta" device, and on a GPU where there is one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_networks
import torch
from one_device import OneDevice
from small_samples import small_samples
from small_training import SMALL, changed, write_episodes

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.model import flow
from imagewam_ros.model.factory import build_network
from imagewam_ros.policy import Policy
from imagewam_ros.training import run
from imagewam_ros.training.metric import chunk_error, sample_chunks
from imagewam_ros.training.network import (
    Progress,
    initialise,
    moments_like,
    resume,
    save,
    start,
    train_network,
    train_step,
)
from imagewam_ros.training.team import Team, join, part_of

AWAY = torch.device("meta")


def test_the_check_itself_notices_two_devices() -> None:
    with OneDevice(), pytest.raises(RuntimeError, match=r"aten::mm reads tensors of cpu, meta"):
        torch.zeros(2, 3, device=AWAY) @ torch.zeros(3, 2)


@pytest.mark.parametrize("at_zero", [True, False])
def test_a_step_reads_one_device(at_zero: bool) -> None:
    config = replace(SMALL.training, prefix_at_zero=at_zero, targets=4, mask_past_end=True)
    network, samples = build_network(SMALL.spec, AWAY), small_samples()
    batch = part_of(samples.draw(np.arange(20), config, 0, 0), Team(device=AWAY))
    with OneDevice():
        losses = flow.losses(network.joint_forward(batch), batch)
        losses.total.backward()
    assert losses.total.device == AWAY
    assert all(weight.grad is not None and weight.grad.device == AWAY for weight in network.parameters())


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_of_any_backbone_reads_one_device(backbone: str, recompute: bool) -> None:
    network = small_networks.network(backbone)
    batch = part_of(small_networks.batch(network, 4), Team(device=AWAY))
    network.to(AWAY).recompute = recompute
    with OneDevice():
        flow.losses(network.joint_forward(batch), batch).total.backward()


def test_held_out_chunks_are_sampled_where_the_network_is() -> None:
    samples, network = small_samples(), build_network(SMALL.spec, AWAY)
    rows = np.arange(6)
    noise = torch.zeros(samples.actions(rows)[0].shape)
    with OneDevice():
        assert sample_chunks(network, samples, rows, noise).device == AWAY


def test_chunks_sampled_in_parts_are_those_of_one_frame() -> None:
    samples, network = small_samples(4), build_network(SMALL.spec).eval()
    initialise(network, 0)
    rows = np.arange(40)  # more than one part
    noise = torch.randn(samples.actions(rows)[0].shape, generator=torch.Generator().manual_seed(0))
    together = sample_chunks(network, samples, rows, noise)
    for row in (0, 31, 32, 39):
        alone = sample_chunks(network, samples, rows[row : row + 1], noise[row : row + 1])
        assert torch.allclose(together[row], alone[0], atol=1e-5)


@pytest.mark.parametrize(("fused", "where"), [(True, "meta"), (False, "cpu")])
def test_fused_steps_are_counted_on_the_weights_device(fused: bool, where: str) -> None:
    """Fused AdamW refuses a count on the CPU beside weights elsewhere; the other kinds want it there."""
    weight, moments = torch.zeros(2, device=AWAY), {"exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    kept = moments_like(weight, moments, 7, fused)
    assert kept["step"].device.type == where and kept["exp_avg"].device == AWAY
    assert moments_like(torch.zeros(2), moments, 7, fused)["step"].item() == 7


def test_a_network_that_never_sees_a_target_is_saved_and_resumed(tmp_path: Path) -> None:
    config, samples = replace(SMALL.training, targets=0), small_samples()
    networks = [build_network(SMALL.spec) for _ in range(2)]
    for network in networks:
        initialise(network, 0)
    first, second = (start(network, config) for network in networks)
    train_step(first, samples, np.arange(20), config, 0)
    save(first, tmp_path / "state.safetensors")
    resume(second, tmp_path / "state.safetensors")
    for progress in (first, second):
        train_step(progress, samples, np.arange(20), config, 0)
    pairs = zip(first.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


WAYS: tuple[dict[str, object], ...] = (
    {}, {"precision": "bfloat16", "recompute": True, "accumulate": 2}, {"lora_rank": 2}
)  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_a_gpu_trains_watches_saves_and_exports(way: dict[str, object], tmp_path: Path) -> None:
    data, robot, team = write_episodes(tmp_path / "episodes"), load_embodiment("sim_cell"), join()
    assert team.device.type == "cuda"
    for _ in range(2):  # the second one resumes what is done
        report = run.train(changed(**way), [data], tmp_path / "run", robot, 0, team)
        assert report["steps"] == 6 and np.isfinite([report["chunk_error"], report["best_chunk_error"]]).all()
        Policy.load(tmp_path / "run" / report["best"], robot)


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_a_gpu_goes_on_from_what_it_saved(way: dict[str, object], tmp_path: Path) -> None:
    config, samples, team = changed(**way).training, small_samples(), Team(device=torch.device("cuda"))

    def begun() -> Progress:
        network = build_network(SMALL.spec)
        initialise(network, 0)
        torch.manual_seed(0)  # of adapters
        return start(network, config, team)

    straight, stopped, again = (begun() for _ in range(3))
    train_network(straight, samples, np.arange(20), config, 0, tmp_path)
    train_network(stopped, samples, np.arange(20), config, 0, tmp_path, until=3)
    save(stopped, tmp_path / "half.safetensors")
    resume(again, tmp_path / "half.safetensors")
    train_network(again, samples, np.arange(20), config, 0, tmp_path)
    pairs = zip(straight.trained.values(), again.trained.values(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-2, atol=1e-3) for a, b in pairs)


@pytest.mark.gpu
def test_a_gpu_takes_the_steps_of_a_cpu() -> None:
    samples, config = small_samples(), SMALL.training
    errors = []
    for device in ("cpu", "cuda"):
        network = build_network(SMALL.spec)
        initialise(network, 0)
        progress = start(network, config, Team(device=torch.device(device)))
        for _ in range(3):
            train_step(progress, samples, np.arange(20), config, 0)
        errors.append(chunk_error(progress.network, samples, np.arange(20)).all)
    assert errors[0] == pytest.approx(errors[1], rel=1e-2)
