# SPDX-License-Identifier: Apache-2.0
"""A run folder is made of one thing: other episodes, weights or numbers are refused with a word on what to do."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_checkpoint import small_checkpoint
from small_training import SMALL, changed, write_episodes

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.data.dataset import Demonstration
from imagewam_ros.data.episode import Provenance
from imagewam_ros.training.episodes import choose_episodes
from imagewam_ros.training.pixels import save_demonstrations
from imagewam_ros.training.presets import Preset, contract_of
from imagewam_ros.training.run_record import hold_to, record_of

ROBOT = load_embodiment("sim_cell")
Episodes = Mapping[Path, Provenance]


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Episodes:
    return choose_episodes([write_episodes(tmp_path_factory.mktemp("shown"), 3)]).episodes


def hold(out: Path, episodes: Episodes, preset: Preset = SMALL, **more: Any) -> str:
    contract = contract_of(preset, ROBOT, next(iter(episodes.values())))
    about = {"seed": 0, **more}
    return hold_to(out, record_of(preset, episodes, contract, ROBOT, **about), episodes)


def made(out: Path, episodes: Episodes, *files: str) -> Path:
    """A run folder whose stages left `files`."""
    hold(out, episodes)
    for name in files:
        (out / name).write_bytes(b"")
    return out


def test_the_same_again_goes_on(tmp_path: Path, episodes: Episodes) -> None:
    out = made(tmp_path / "run", episodes, "demonstrations.npz", "latents.npy", "state.safetensors")
    before = json.loads((out / "run.json").read_text())
    turned = dict(reversed(list(episodes.items())))
    assert hold(out, turned, changed(save_every=1, recompute=True)) == ""
    assert json.loads((out / "run.json").read_text()) == before
    assert sorted(before["reading"]["episodes"].values())[0].endswith("/episode_0")


def test_other_episodes_are_refused(tmp_path: Path, episodes: Episodes) -> None:
    out = made(tmp_path / "run", episodes, "demonstrations.npz")
    more = choose_episodes([next(iter(episodes)).parent, write_episodes(tmp_path / "b", 2, begin=0.1, task="bar")])
    with pytest.raises(
        ConfigError,
        match=r"run was made of 3 episodes, 5 are given, 2 of them new or changed \(b/episode_0, b/episode_1\); "
        r"remove .*run to make all of it again, or choose another --out",
    ):
        hold(out, more.episodes)
    fewer = dict(list(episodes.items())[:1])
    with pytest.raises(ConfigError, match=r"made of 3 episodes, 1 are given, 2 missing or changed \(.*/episode_1"):
        hold(out, fewer)
    with pytest.raises(ConfigError, match="was made with trim_idle False, asked is True"):
        hold(out, episodes, trim_idle=True)


def test_another_base_is_refused_once_frames_are_encoded(tmp_path: Path, episodes: Episodes) -> None:
    out = made(tmp_path / "run", episodes, "demonstrations.npz")
    base = small_checkpoint(tmp_path / "base")
    hold(out, episodes, base=base)
    (out / "latents.npy").write_bytes(b"")
    hold(out, episodes, base=base)
    with (base / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(ConfigError, match=r"was made with base '\w{16}', asked is '\w{16}'; remove .*run to make"):
        hold(out, episodes, base=base)
    with pytest.raises(ConfigError, match=r"was made with base '\w{16}', asked is ''"):
        hold(out, episodes)


def test_a_number_may_change_until_something_was_made_with_it(tmp_path: Path, episodes: Episodes) -> None:
    out = made(tmp_path / "run", episodes, "demonstrations.npz", "latents.npy")
    assert hold(out, episodes, changed(steps=12, batch=8)) == ""
    with pytest.raises(ConfigError, match="was made with seed 0, asked is 1; remove"):
        hold(out, episodes, seed=1)
    finer = replace(SMALL, autoencoder=replace(SMALL.autoencoder, steps=99))
    with pytest.raises(ConfigError, match=r"was made with autoencoder\.steps 3, asked is 99"):
        hold(out, episodes, finer)


def test_more_steps_are_another_training(tmp_path: Path, episodes: Episodes) -> None:
    """The learning rate falls over all steps: what was reached on the way to 6 is no point on the way to 12."""
    out = made(tmp_path / "run", episodes, "demonstrations.npz", "latents.npy", "state.safetensors")
    with pytest.raises(
        ConfigError,
        match=r"was made with steps 6, asked is 12; remove state\.safetensors, best\.safetensors and log\.csv in .*run "
        r"to train anew on what is encoded there, or go on from .*checkpoint with --base and another --out",
    ):
        hold(out, episodes, changed(steps=12))
    (out / "state.safetensors").unlink()
    assert hold(out, episodes, changed(steps=12)) == ""


def test_earlier_stages_count_while_later_ones_have_left_something(tmp_path: Path, episodes: Episodes) -> None:
    out = made(tmp_path / "run", episodes, "latents.npy")
    with pytest.raises(ConfigError, match="was made of 3 episodes, 1 are given"):
        hold(out, dict(list(episodes.items())[:1]))


def test_a_number_that_an_older_version_did_not_note_is_not_compared(tmp_path: Path, episodes: Episodes) -> None:
    out = made(tmp_path / "run", episodes, "demonstrations.npz", "latents.npy", "state.safetensors")
    record = json.loads((out / "run.json").read_text())
    del record["network"]["clip"]
    (out / "run.json").write_text(json.dumps(record))
    hold(out, episodes, changed(clip=5.0))
    assert json.loads((out / "run.json").read_text())["network"]["clip"] == 5.0


def test_a_folder_without_a_record_is_taken_when_its_demonstrations_fit(tmp_path: Path, episodes: Episodes) -> None:
    zeros = np.zeros((4, 14))
    shown = [Demonstration(path.name, about.instruction, about.seed, zeros, zeros) for path, about in episodes.items()]
    for name, some in (("whole", shown), ("part", shown[:2]), ("more", [*shown, replace(shown[0], seed=5)])):
        (tmp_path / name).mkdir()
        save_demonstrations(some, tmp_path / name / "demonstrations.npz")
    assert "an older version made it. Its demonstrations are those given" in hold(tmp_path / "whole", episodes)
    assert hold(tmp_path / "whole", episodes) == "", "from now on it has one"
    for name in ("part", "more"):
        with pytest.raises(ConfigError, match=r"has no run\.json.* are not those of the 3 episodes given \(episode_"):
            hold(tmp_path / name, episodes)
        assert not (tmp_path / name / "run.json").exists()
