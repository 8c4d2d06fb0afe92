# SPDX-License-Identifier: Apache-2.0
"""The mean weights with the lowest held-out error are kept, survive a stop, and become a checkpoint beside the last."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_samples import small_samples
from small_training import ALONE, SMALL, changed, write_episodes

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.model.factory import build_network
from imagewam_ros.training import run
from imagewam_ros.training.best import Best, best_weights, keep_best, read_best
from imagewam_ros.training.export import KEPT, export, write_checkpoints
from imagewam_ros.training.network import Progress, initialise, resume, start, train_network, train_step
from imagewam_ros.training.presets import Preset

ROWS = np.arange(20)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def begun(preset: Preset = SMALL) -> Progress:
    network = build_network(preset.spec)
    initialise(network, 0)
    return start(network, preset.training)


def test_only_a_lower_error_is_kept(tmp_path: Path) -> None:
    progress, path = begun(), tmp_path / KEPT
    assert read_best(path) is None
    kept = []
    for error in (0.5, 0.7, float("nan"), 0.5, 0.25, 0.3):
        progress.step += 10
        kept.append(keep_best(progress, error, path))
    assert kept == [True, False, False, False, True, False]
    assert read_best(path) == Best(50, 0.25)
    assert not list(tmp_path.glob("*.part"))


def test_an_error_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    assert not keep_best(begun(), float("nan"), tmp_path / KEPT)
    assert read_best(tmp_path / KEPT) is None


@pytest.mark.parametrize("average", [0.9, 0.0])
def test_what_is_kept_are_the_mean_weights(average: float, tmp_path: Path) -> None:
    preset = changed(average=average)
    progress, samples = begun(preset), small_samples()
    for _ in range(2):
        train_step(progress, samples, ROWS, preset.training, 0)
    keep_best(progress, 0.5, tmp_path / KEPT)
    found = best_weights(tmp_path / KEPT)
    assert set(found) == set(progress.trained)
    for name, weight in progress.trained.items():
        assert torch.equal(found[name], progress.average.get(name, weight).detach().half().float())


def test_a_stopped_run_keeps_the_same_best_as_one_that_was_not(tmp_path: Path) -> None:
    samples, config = small_samples(), replace(SMALL.training, steps=8, save_every=2)
    errors = {2: 0.9, 4: 0.3, 6: 0.6, 8: 0.5}

    def run_to(store: Path, progress: Progress, dies_at: int = 0) -> None:
        def watch(reached: Progress) -> str:
            keep_best(reached, errors[reached.step], store / KEPT)
            if reached.step == dies_at:
                raise KeyboardInterrupt  # after the best was kept, before the state was saved
            return ""

        train_network(progress, samples, ROWS, config, 0, store, watch)

    straight, halves = tmp_path / "straight", tmp_path / "halves"
    straight.mkdir(), halves.mkdir()
    run_to(straight, begun())
    with pytest.raises(KeyboardInterrupt):
        run_to(halves, begun(), dies_at=4)
    again = begun()
    resume(again, halves / "state.safetensors")
    assert again.step == 2
    run_to(halves, again)
    assert read_best(straight / KEPT) == read_best(halves / KEPT) == Best(4, 0.3)
    one, two = load_file(straight / KEPT), load_file(halves / KEPT)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_best_and_last_become_two_checkpoints_when_they_differ(lora_rank: int, tmp_path: Path) -> None:
    preset = changed(lora_rank=lora_rank, average=0.0)
    progress, samples = begun(preset), small_samples()
    train_step(progress, samples, ROWS, preset.training, 0)
    keep_best(progress, 0.1, tmp_path / KEPT)
    wanted = export(progress, preset)
    train_step(progress, samples, ROWS, preset.training, 0)
    written = {}

    def write(folder: Path, network: torch.nn.Module) -> None:
        folder.mkdir()
        written[folder.name] = network.state_dict()

    assert write_checkpoints(tmp_path, progress, preset, write) == ("best", Best(1, 0.1))
    assert wanted is not None and set(written) == {"checkpoint", "best"}
    for name, weight in wanted.state_dict().items():
        assert torch.allclose(written["best"][name], weight, rtol=1e-3, atol=1e-4), name
    assert any(not torch.equal(written["checkpoint"][name], written["best"][name]) for name in written["best"])
    for folder in ("checkpoint", "best"):
        (tmp_path / folder / "config.json").write_text("{}")
    keep_best(progress, 0.05, tmp_path / KEPT)

    def rewrite(folder: Path, network: torch.nn.Module) -> None:
        assert folder.name == "checkpoint" and not (folder / "config.json").exists()

    assert write_checkpoints(tmp_path, progress, preset, rewrite) == ("checkpoint", Best(2, 0.05))
    assert not (tmp_path / "best").exists(), "what was the best before is not kept beside a better last"


def test_a_run_says_which_of_its_checkpoints_is_best(tmp_path: Path) -> None:
    data, robot, out = write_episodes(tmp_path / "episodes"), load_embodiment("sim_cell"), tmp_path / "run"
    report = run.train(changed(learning_rate=0.3), [data], out, robot, 0, read=ALONE)
    known = read_best(out / KEPT)
    assert known is not None and (report["best_step"], report["best_chunk_error"]) == (
        known.step,
        round(known.error, 4),
    )
    assert report["best"] == ("checkpoint" if known.step == 6 else "best")
    assert (out / report["best"] / "config.json").exists() and (out / "best").exists() == (known.step != 6)
    (out / "state.safetensors").unlink()
    unreal = begun()
    unreal.step = 999
    assert keep_best(unreal, 0.0, out / KEPT)
    again = run.train(changed(learning_rate=0.3), [data], out, robot, 0, read=ALONE)
    assert again["best_step"] == report["best_step"], "a run that begins again knows nothing of weights before it"
