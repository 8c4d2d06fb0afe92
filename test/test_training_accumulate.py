# SPDX-License-Identifier: Apache-2.0
"""A batch in parts is the same step as the whole batch, and parts that cannot be equal are refused."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import small_networks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import ALONE, SMALL, write_episodes

from imagewam_ros import train
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.protocol import JointBatch
from imagewam_ros.training import presets, run
from imagewam_ros.training.network import learn, start
from imagewam_ros.training.presets import TrainConfig
from imagewam_ros.training.team import Team, check_shares, share

CONFIG = TrainConfig(steps=10, warmup=0, batch=4, draws=1, targets=4, clip=1e9)


def batch_of(backbone: str, samples: int, targets: int, one_text: bool) -> JointBatch:
    whole = small_networks.batch(small_networks.network(backbone), samples)
    assert whole.target is not None and whole.target_noise is not None and whole.target_timestep is not None
    pad = torch.zeros(samples, small_networks.HORIZON, dtype=torch.bool)
    pad[0, 2:] = True
    return replace(
        whole,
        context=type(whole.context)(whole.context.tokens[:1]) if one_text else whole.context,
        target=whole.target[:targets] if targets else None,
        target_noise=whole.target_noise[:targets] if targets else None,
        target_timestep=whole.target_timestep[:targets] if targets else None,
        action_is_pad=pad,
    )  # fmt: skip


def gradients(backbone: str, batch: JointBatch, parts: int) -> tuple[dict[str, torch.Tensor], float]:
    config = replace(CONFIG, accumulate=parts)
    progress = start(small_networks.network(backbone), config)
    loss = learn(progress, batch, config, 5.0)
    found = {name: weight.grad for name, weight in progress.trained.items() if weight.grad is not None}
    return found, loss.total.item()


@settings(max_examples=12)
@given(
    st.sampled_from(small_networks.BACKBONES), st.integers(2, 3), st.integers(0, 2), st.integers(1, 2), st.booleans()
)
def test_parts_have_the_gradient_of_the_whole(backbone, parts, targets, share_of_each, one_text):
    targets = min(targets, share_of_each) * parts
    batch = batch_of(backbone, parts * share_of_each, targets, one_text)
    (whole, loss), (summed, mean) = gradients(backbone, batch, 1), gradients(backbone, batch, parts)
    assert mean == pytest.approx(loss, rel=1e-5) and set(summed) == set(whole)
    for name, gradient in whole.items():
        scale = float(gradient.abs().max()) + 1e-6
        assert torch.allclose(summed[name], gradient, rtol=1e-3, atol=1e-4 * scale), name


def test_one_part_is_the_batch_itself():
    batch = batch_of("flux2", 2, 2, False)
    assert share(batch, 0, 1) is batch


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((4, 4, 3, 1), "3 processes cannot share 4 samples with 4 targets equally; .* multiples of 3"),
        ((4, 2, 1, 4), "1 process in 4 parts each cannot share 4 samples with 2 targets equally; .* multiples of 4"),
        ((8, 8, 4, 4), "4 processes in 4 parts each cannot share 8 samples with 8 targets equally; .* multiples of 16"),
    ],
)
def test_unequal_parts_are_refused(numbers, text):
    with pytest.raises(ConfigError, match=text):
        check_shares(*numbers)


def test_no_parts_at_all_are_refused():
    with pytest.raises(ConfigError, match="accumulate is at least 1, found 0"):
        TrainConfig(accumulate=0)


def test_unequal_parts_are_refused_before_anything_is_read(tmp_path: Path):
    preset = replace(SMALL, training=replace(SMALL.training, accumulate=3))
    with pytest.raises(ConfigError, match="1 process in 3 parts each cannot share 4 samples with 2 targets"):
        run.train(preset, [tmp_path], tmp_path / "run", load_embodiment("sim_cell"), 0, Team())


def options(*words: str) -> TrainConfig:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    chosen = parser.parse_args(["--data", "d", "--out", "o", *words])
    return train.changed(presets.find_preset(chosen.preset), chosen).training


def test_command_changes_the_batch_and_keeps_the_share_of_targets():
    assert (options().batch, options().targets, options().accumulate) == (32, 8, 1)
    assert (options("--batch", "16").batch, options("--batch", "16").targets) == (16, 4)
    assert options("--batch", "2").targets == 1
    large = options("--preset", "flux2_4b", "--batch", "16", "--accumulate", "16")
    assert (large.batch, large.targets, large.accumulate) == (16, 16, 16)


def test_accumulated_run_ends_where_a_plain_one_does(tmp_path: Path):
    torch.set_num_threads(1)
    data = write_episodes(tmp_path / "episodes")
    reports = [
        run.train(replace(SMALL, training=replace(SMALL.training, accumulate=parts)), [data], tmp_path / name,
                  load_embodiment("sim_cell"), 0, read=ALONE)
        for name, parts in (("plain", 1), ("parts", 2))
    ]  # fmt: skip
    assert reports[0]["chunk_error"] == pytest.approx(reports[1]["chunk_error"], rel=1e-2)
