# SPDX-License-Identifier: Apache-2.0
"""Training: losses fall, stopping changes nothing, one command makes a checkpoint that runs."""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_training import ALONE, SMALL, changed, write_episodes

from imagewam_ros import train
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import CheckpointError, ConfigError, EmbodimentMismatch, EpisodeError, ImageWamError
from imagewam_ros.core.schema import Observation
from imagewam_ros.data.dataset import Dataset, Demonstration
from imagewam_ros.data.episode import read_provenance
from imagewam_ros.model import flow
from imagewam_ros.model.checkpoint import load_checkpoint
from imagewam_ros.model.factory import build_network
from imagewam_ros.model.protocol import Context, Instruction
from imagewam_ros.policy import Policy
from imagewam_ros.training import presets, run
from imagewam_ros.training.autoencoder import autoencoder_loss, build_autoencoder, encode_all, train_autoencoder
from imagewam_ros.training.export import export
from imagewam_ros.training.metric import chunk_error
from imagewam_ros.training.network import Progress, averaged, initialise, resume, save, start, train_network, train_step
from imagewam_ros.training.pixels import load_demonstrations, save_demonstrations, to_bytes, to_unit
from imagewam_ros.training.presets import TrainConfig
from imagewam_ros.training.prompts import encode_prompts
from imagewam_ros.training.rates import cosine
from imagewam_ros.training.samples import Samples
from imagewam_ros.training.team import Team, part_of

ROBOT = load_embodiment("sim_cell")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("episodes"))


@pytest.fixture(scope="module")
def trained(episodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    run.train(SMALL, [episodes], out, ROBOT, seed=0, read=ALONE)
    return out


@pytest.fixture(scope="module")
def samples(episodes: Path, trained: Path) -> Samples:
    """What the network learned from, read again from the run folder."""
    checkpoint = load_checkpoint(trained / "checkpoint")
    demonstrations = load_demonstrations(trained / "demonstrations.npz")
    dataset = Dataset(demonstrations, checkpoint.contract.horizon, checkpoint.contract.relative)
    instructions = {d.instruction: checkpoint.model.encode_instruction(d.instruction) for d in demonstrations}
    latents = np.load(trained / "latents.npy")
    return Samples(dataset, latents, checkpoint.contract, checkpoint.statistics, instructions)


def fresh(config: TrainConfig) -> Progress:
    network = build_network(SMALL.spec)
    initialise(network, 0)
    return start(network, config)


def weights(progress: Progress) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in progress.network.parameters()])


def test_run_makes_a_checkpoint_that_a_robot_loads(trained: Path) -> None:
    robot = ROBOT
    policy = Policy.load(trained / "checkpoint", robot)
    assert policy.contract.relative.count(False) == 2 and policy.contract.first_row_offset_periods == 1.0
    images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in robot.cameras}
    chunk = policy.infer(Observation(0, images, np.zeros(14), "lift the tray with both hands"))
    assert chunk.positions.shape == (4, 14) and np.isfinite(chunk.positions).all()
    stored = load_file(trained / "checkpoint" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_report_and_log_say_what_was_done(trained: Path) -> None:
    report = json.loads((trained / "report.json").read_text())
    assert (report["episodes"], report["held_out_episodes"], report["frames"], report["steps"]) == (3, 1, 24, 6)
    assert report["chunk_error"] > 0 and "network_cpu_s" in report
    assert not (trained / "log.csv").exists()  # fewer steps than a log line covers


def test_running_again_does_nothing_twice(episodes: Path, trained: Path) -> None:
    before = {name: (trained / name).stat().st_mtime_ns for name in ("pixels.npy", "latents.npy", "state.safetensors")}
    run.train(SMALL, [episodes], trained, ROBOT, seed=0)
    assert before == {name: (trained / name).stat().st_mtime_ns for name in before}


def test_loss_falls_on_one_batch(samples: Samples) -> None:
    config = replace(SMALL.training, steps=60, proprio_noise=0.0, targets=4)
    progress = fresh(config)
    batch = samples.draw(np.arange(4), config, 0, 0)
    first = None
    for _ in range(60):
        loss = flow.losses(progress.network.joint_forward(batch), batch)
        first = first or loss.total.item()
        progress.optimizer.zero_grad()
        loss.total.backward()
        progress.optimizer.step()
    assert loss.total.item() < 0.6 * first


def test_stopping_and_resuming_gives_the_same_weights(samples: Samples, tmp_path: Path) -> None:
    rows, config = np.arange(16), SMALL.training
    straight = fresh(config)
    train_network(straight, samples, rows, config, 0, tmp_path)
    stopped = fresh(config)
    for _ in range(3):
        train_step(stopped, samples, rows, config, 0)
    save(stopped, tmp_path / "half.safetensors")
    again = fresh(config)
    resume(again, tmp_path / "half.safetensors")
    train_network(again, samples, rows, config, 0, tmp_path)
    assert torch.equal(weights(straight), weights(again))
    assert all(torch.equal(mean, again.average[name]) for name, mean in straight.average.items())


def test_another_seed_gives_other_batches(samples: Samples) -> None:
    draw = [samples.draw(np.arange(16), SMALL.training, *key).action_noise for key in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2]) and not torch.equal(draw[0], draw[3])


def test_batch_has_the_shapes_that_the_network_takes(samples: Samples) -> None:
    batch = samples.draw(np.arange(16), changed(mask_past_end=True).training, 0, 0)
    assert batch.reference.shape == (4, 16, 1, 3) and batch.target is not None and batch.target.shape[0] == 2
    assert batch.actions.shape == (4, 4, 14) and batch.action_noise.shape == (8, 4, 14)
    assert batch.action_timestep.shape == (8,) and batch.action_timestep.max() <= 1000
    assert batch.action_is_pad is not None and batch.action_is_pad.shape == (4, 4)


def test_authors_prefix_trains_too(samples: Samples) -> None:
    config = replace(SMALL.training, prefix_at_zero=False, targets=4)
    assert torch.isfinite(train_step(fresh(config), samples, np.arange(16), config, 0).total)


def test_instructions_of_different_length_share_a_batch(samples: Samples) -> None:
    long, short = samples.instructions["lift the tray with both hands"], "lift"
    demonstrations = [
        replace(d, instruction=short if i else long.text) for i, d in enumerate(samples.dataset.demonstrations)
    ]
    dataset = Dataset(demonstrations, 4, samples.contract.relative)
    cut = replace(long, text=short, tokens=long.tokens[:2])
    mixed = replace(samples, dataset=dataset, instructions={long.text: long, short: cut})
    context = mixed.context(np.array([0, 10]))
    assert context.mask is not None and context.mask.sum(1).tolist() == [len(long.tokens), 2]
    assert torch.isfinite(train_step(fresh(SMALL.training), mixed, np.arange(24), SMALL.training, 0).total)


class Countable:
    """A text encoder that knows how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, prompt: str) -> torch.Tensor:
        self.asked.append(prompt)
        return torch.full((len(prompt), 2), float(len(prompt)))


def test_prompts_are_encoded_once(tmp_path: Path) -> None:
    encoder, path = Countable(), tmp_path / "instructions.safetensors"
    first = encode_prompts(encoder, ["lift", "hand over"], path)  # type: ignore[arg-type]
    again = encode_prompts(encoder, ["hand over", "lift the tray"], path)  # type: ignore[arg-type]
    assert encoder.asked == ["lift", "hand over", "lift the tray"]
    assert torch.equal(first["hand over"], again["hand over"]) and list(again) == ["hand over", "lift the tray"]


def test_run_keeps_its_encoded_instructions(trained: Path, samples: Samples) -> None:
    kept = load_file(trained / "instructions.safetensors")
    (text,) = samples.instructions.values()
    assert list(kept) == [SMALL.prompt.format(task=text.text)]
    assert torch.allclose(next(iter(kept.values())), text.tokens.float(), atol=1e-2)


class Seeing:
    """A text encoder whose features are the image's mean beside the ids, one row more where it is bright."""

    def condition(self, tokens: torch.Tensor, images: torch.Tensor) -> Context:
        shade = images.mean()
        length = len(tokens) + int(shade > 0)
        return Context(torch.full((1, length + 1, 2), float(shade)), torch.arange(length + 1)[None] < length)


def test_features_that_depend_on_the_image_are_computed_for_each_frame(samples: Samples) -> None:
    ids = {text: replace(known, tokens=torch.arange(3)) for text, known in samples.instructions.items()}
    pixels = np.zeros((24, 4, 4, 3), np.uint8)
    pixels[5] = 255
    seeing = replace(samples, instructions=ids, text=Seeing(), pixels=pixels)  # type: ignore[arg-type]
    context = seeing.context(np.array([0, 5]))
    assert context.mask is not None and context.mask.sum(1).tolist() == [3, 4]
    assert context.tokens[:, 0, 0].tolist() == [-1.0, 1.0]


class Padded:
    """A text encoder that keeps one pad row behind the features."""

    def condition(self, tokens: torch.Tensor, images: torch.Tensor) -> Context:
        return Context(tokens[None], (torch.arange(len(tokens)) < len(tokens) - 1)[None])


@pytest.mark.parametrize(
    ("instructions", "valid"), [(1, [[True, True, False]]), (2, [[True, True, False], [True, False, False]])]
)
def test_a_kept_pad_row_is_no_text_in_training_either(
    samples: Samples, instructions: int, valid: list[list[bool]]
) -> None:
    texts = ("lift", "hold")[:instructions]
    known = {text: Instruction(text, torch.ones(3 - i, 2)) for i, text in enumerate(texts)}
    demonstrations = [
        replace(d, instruction=texts[min(i, instructions - 1)]) for i, d in enumerate(samples.dataset.demonstrations)
    ]
    dataset = Dataset(demonstrations, 4, samples.contract.relative)
    padded = replace(samples, dataset=dataset, instructions=known, text=Padded())  # type: ignore[arg-type]
    context = padded.context(np.array([0, 10]))
    assert context.mask is not None and context.mask.tolist() == valid
    assert context.tokens.shape == (instructions, 3, 2)


def test_chunk_error_falls_with_training(samples: Samples, tmp_path: Path) -> None:
    config, rows = replace(SMALL.training, steps=150, batch=8, average=0.9), np.arange(24)
    progress = fresh(config)
    before = chunk_error(progress.network, samples, rows)
    train_network(progress, samples, rows, config, 0, tmp_path)
    with averaged(progress) as network:
        assert chunk_error(network, samples, rows).all < 0.8 * before.all
    assert progress.network.training
    with (tmp_path / "log.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == ["50", "100", "150"]
    assert float(lines[-1]["action"]) < float(lines[0]["action"])


def test_loss_that_is_no_number_stops(samples: Samples, tmp_path: Path) -> None:
    broken = replace(samples, latents=np.full_like(samples.latents, np.nan))
    with pytest.raises(ImageWamError, match="loss is nan and its gradient nan at step 0; train with a lower"):
        train_network(fresh(SMALL.training), broken, np.arange(16), SMALL.training, 0, tmp_path)
    progress, config = fresh(SMALL.training), replace(SMALL.training, save_every=1)
    weight = progress.network.proprio_encoder.weight
    weight.register_hook(lambda gradient: gradient * np.inf)
    with pytest.raises(ImageWamError, match=r"loss is \d.* and its gradient (nan|inf) at step 0"):
        train_network(progress, samples, np.arange(16), config, 0, tmp_path)
    assert weight.isfinite().all() and not (tmp_path / "state.safetensors").exists()


def test_state_of_another_network_is_refused(tmp_path: Path, samples: Samples) -> None:
    progress = fresh(SMALL.training)
    train_step(progress, samples, np.arange(16), SMALL.training, 0)
    save(progress, tmp_path / "state.safetensors")
    wider = replace(SMALL.spec, network=replace(SMALL.spec.network, single=3))
    other = start(build_network(wider), SMALL.training)
    with pytest.raises(CheckpointError, match="it belongs to another preset"):
        resume(other, tmp_path / "state.safetensors")


def test_going_on_from_a_checkpoint_keeps_its_contract(episodes: Path, trained: Path, tmp_path: Path) -> None:
    preset = changed(steps=1, learning_rate=0.0)
    run.train(preset, [episodes], tmp_path / "tuned", ROBOT, seed=1, base=trained / "checkpoint", read=ALONE)
    before, after = (load_checkpoint(folder / "checkpoint") for folder in (trained, tmp_path / "tuned"))
    assert after.contract == before.contract and after.spec == before.spec
    weights = zip(before.model.network.parameters(), after.model.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_checkpoint_remembers_the_time_that_its_prefix_was_trained_at(episodes: Path, tmp_path: Path) -> None:
    preset = changed(steps=1, prefix_at_zero=False, targets=SMALL.training.batch)
    run.train(preset, [episodes], tmp_path / "theirs", ROBOT, seed=0, read=ALONE)
    assert not load_checkpoint(tmp_path / "theirs" / "checkpoint").spec.prefix_at_zero


def test_pretrained_presets_need_their_weights(episodes: Path, trained: Path, tmp_path: Path) -> None:
    preset = presets.find_preset("flux2_4b_lora")
    with pytest.raises(ConfigError, match="name a checkpoint with --base"):
        run.train(preset, [episodes], tmp_path / "none", ROBOT, seed=0)
    quick = replace(preset, training=replace(preset.training, steps=1, batch=4, targets=4, lora_rank=2))
    run.train(quick, [episodes], tmp_path / "tuned", ROBOT, seed=0, base=trained / "checkpoint", read=ALONE)
    assert load_checkpoint(tmp_path / "tuned" / "checkpoint").spec == replace(SMALL.spec, prefix_at_zero=False)


def test_merged_adapters_equal_applied_ones(samples: Samples, tmp_path: Path) -> None:
    preset = changed(lora_rank=2, steps=4, average=0.0)
    progress = fresh(preset.training)
    frozen = progress.network.get_parameter("video.double_blocks.0.img_attn.qkv.base_layer.weight").clone()
    assert {name.split(".")[-3] for name in progress.trained if "lora_" in name} >= {"lora_A", "lora_B"}
    train_network(progress, samples, np.arange(16), preset.training, 0, tmp_path)
    merged = export(progress, preset)
    assert [name for name, _ in merged.named_parameters()] == [
        n for n, _ in build_network(SMALL.spec).named_parameters()
    ]
    batch = samples.draw(np.arange(16), preset.training, 5, 0)
    with torch.no_grad():
        applied, plain = progress.network.joint_forward(batch), merged.joint_forward(batch)
    assert torch.allclose(applied.action, plain.action, atol=1e-5)
    assert applied.video is not None and plain.video is not None
    assert torch.allclose(applied.video, plain.video, atol=1e-5)
    kept = progress.network.get_parameter("video.double_blocks.0.img_attn.qkv.base_layer.weight")
    assert torch.equal(kept, frozen)
    assert not torch.allclose(merged.get_parameter("video.double_blocks.0.img_attn.qkv.weight"), frozen)


@pytest.mark.slow
def test_two_processes_shard_and_agree_with_one(episodes: Path, trained: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(trained, alone, ignore=shutil.ignore_patterns("state.safetensors", "checkpoint"))
    shutil.copytree(alone, tmp_path / "pair")
    run.train(SMALL, [episodes], alone, ROBOT, seed=0)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).parent / "fakes" / "two_processes.py"
    done = subprocess.run(
        [*words, str(script), str(episodes), str(tmp_path / "pair")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    local, full = (int(word) for word in re.search(r"sharded: (\d+) of (\d+)", done.stdout).groups())  # type: ignore[union-attr]
    assert local <= 0.6 * full
    one, two = (load_file(folder / "state.safetensors") for folder in (alone, tmp_path / "pair"))
    assert all(torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-4) for name in one)


def test_parts_of_a_batch_are_the_batch(samples: Samples) -> None:
    batch = samples.draw(np.arange(16), SMALL.training, 0, 0)
    parts = [part_of(batch, Team(rank, 2)) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.reference for part in parts]), batch.reference[[0, 2, 1, 3]])
    assert torch.equal(torch.cat([p.action_noise for p in parts]), batch.action_noise[[0, 1, 4, 5, 2, 3, 6, 7]])
    assert batch.target is not None and torch.equal(torch.cat([p.target for p in parts]), batch.target)  # type: ignore[misc]
    with pytest.raises(ConfigError, match="3 processes cannot share 4 samples with 2 targets"):
        part_of(batch, Team(0, 3))


def test_autoencoder_learns_and_repeats(tmp_path: Path) -> None:
    config = replace(SMALL.autoencoder, steps=30)
    mosaics = np.random.default_rng(0).integers(0, 255, (6, 16, 1, 3), dtype=np.uint8).repeat(48, 2)
    first, second = (train_autoencoder(config, mosaics, np.arange(6), seed=0) for _ in range(2))
    pairs = zip(first.autoencoder.parameters(), second.autoencoder.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    torch.manual_seed(0)
    untrained, image = build_autoencoder(config), to_unit(mosaics)
    errors = [autoencoder_loss(m, image, config, torch.Generator())[1] for m in (untrained, first.autoencoder)]
    assert errors[1] < errors[0]
    latents = encode_all(first, mosaics, tmp_path / "latents.npy")
    assert latents.shape == (6, 16, 1, 3) and abs(float(latents.astype(np.float32).mean())) < 0.2


def test_bytes_survive_the_unit_range() -> None:
    mosaics = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    assert np.array_equal(to_bytes(to_unit(mosaics)), mosaics)


def test_demonstrations_survive_the_disk(samples: Samples, tmp_path: Path) -> None:
    save_demonstrations(samples.dataset.demonstrations, tmp_path / "d.npz")
    for a, b in zip(samples.dataset.demonstrations, load_demonstrations(tmp_path / "d.npz"), strict=True):
        assert (a.name, a.instruction, a.seed) == (b.name, b.instruction, b.seed)
        assert np.array_equal(a.positions, b.positions) and np.array_equal(a.actions, b.actions)


def test_held_out_demonstrations_lie_among_all() -> None:
    shown = [Demonstration(f"episode_{i}", "lift", i, np.zeros((4, 1)), np.zeros((4, 1))) for i in range(100)]
    learned, held = run.split(shown, 0.05)
    assert held == [10, 30, 50, 70, 90] and sorted(learned + held) == list(range(100))
    assert run.split(shown[:1], 0.05) == ([0], [0])
    stretches = [shown[i // 3] for i in range(30)]
    assert run.split(stretches, 0.05) == ([*range(15), *range(18, 30)], [15, 16, 17]), "an episode is not cut in two"


def test_what_is_not_learned_is_not_judged(samples: Samples) -> None:
    network, ends = fresh(SMALL.training).network, samples.dataset.chunks(np.arange(24))[1].any(1)

    def judged(open_end: bool, mask_past_end: bool) -> float:
        shown = [replace(one, open_end=open_end) for one in samples.dataset.demonstrations]
        part = replace(samples, dataset=Dataset(shown, samples.contract.horizon, samples.contract.relative))
        return chunk_error(network, part, np.flatnonzero(ends), mask_past_end=mask_past_end).all

    assert judged(open_end=True, mask_past_end=False) == judged(open_end=False, mask_past_end=True)
    assert judged(open_end=False, mask_past_end=False) != judged(open_end=False, mask_past_end=True)


def test_learning_rate_rises_then_falls() -> None:
    rates = [cosine(step, 100, 10, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] and rates[-1] == pytest.approx(0.1)


def test_what_does_not_fit_is_named(episodes: Path, tmp_path: Path) -> None:
    slow = write_episodes(tmp_path / "slow", count=1, first_row_offset_periods=0.0)
    with pytest.raises(
        EmbodimentMismatch, match=r"slow/episode_0: first_row_offset_periods is 0\.0, the others have 1\.0"
    ):
        run.train(SMALL, [episodes, slow], tmp_path / "run", ROBOT, 0, read=ALONE)
    failed = write_episodes(tmp_path / "failed", count=1, label="failure")
    assert read_provenance(failed / "episode_0").label == "failure"
    with pytest.raises(EpisodeError, match="none of 1 episodes is labelled success"):
        run.train(SMALL, [failed], tmp_path / "run", ROBOT, 0, read=ALONE)
    examined = write_episodes(tmp_path / "examined", count=1, seed=1042)
    with pytest.raises(EpisodeError, match=r"examined/episode_0 was made from seed 1042: seeds below 1000000 are for"):
        run.train(SMALL, [episodes, examined], tmp_path / "run", ROBOT, 0, read=ALONE)
    renamed = write_episodes(tmp_path / "renamed", count=1) / "episode_0" / "metadata.yaml"
    renamed.write_text(renamed.read_text().replace('["head"', '["cam_high"'))
    with pytest.raises(
        EmbodimentMismatch, match="renamed/episode_0 has no camera head, only cam_high, left_wrist, right"
    ):
        run.train(SMALL, [renamed.parent.parent], tmp_path / "run", ROBOT, 0, read=ALONE)
    with pytest.raises(ConfigError, match="unknown preset 'tinny'; did you mean 'tiny'"):
        presets.find_preset("tinny")
    with pytest.raises(ConfigError, match="set targets to batch"):
        changed(prefix_at_zero=False)
    with pytest.raises(ConfigError, match="targets at most batch"):
        changed(targets=99)
    with pytest.raises(ConfigError, match="held_out and average"):
        changed(held_out=1.0)


def test_curves_for_tensorboard(episodes: Path, tmp_path: Path) -> None:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        with pytest.raises(ConfigError, match=r"--tensorboard needs TensorBoard: pip install -r requirements/training"):
            run.train(SMALL, [episodes], tmp_path, ROBOT, seed=0, tensorboard=True, read=ALONE)
        return
    run.train(SMALL, [episodes], tmp_path, ROBOT, seed=0, tensorboard=True, read=ALONE)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("chunk error/all")] == [3, 6]


def test_command_changes_a_few_numbers() -> None:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    arguments = parser.parse_args(["--data", "d", "--out", "o", "--steps", "7", "--autoencoder-steps", "5"])
    preset = train.changed(presets.TINY, arguments)
    assert (preset.training.steps, preset.autoencoder.steps) == (7, 5)
    assert presets.TINY.training.steps != 7
