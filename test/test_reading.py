# SPDX-License-Identifier: Apache-2.0
"""Episodes to mosaics on the disk: what is left out is counted, memory stays small, a full disk is said."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_training import SMALL, write_episodes

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import DiskError, EpisodeError
from imagewam_ros.data.episode import find_episodes, read_provenance
from imagewam_ros.data.frames import read_frames
from imagewam_ros.model.preprocess import mosaic_pixels
from imagewam_ros.training.disk import reserve, writing
from imagewam_ros.training.episodes import choose_episodes, counted
from imagewam_ros.training.pixels import Footage, ReadConfig, read_footage, to_bytes
from imagewam_ros.training.presets import contract_of

ROBOT = load_embodiment("sim_cell")


def read(root: Path, store: Path, workers: int = 1) -> Footage:
    store.mkdir(exist_ok=True)
    episodes = find_episodes(root)
    mosaic = contract_of(SMALL, ROBOT, read_provenance(episodes[0])).mosaic
    return read_footage(episodes, mosaic, store, ReadConfig(workers=workers))


@pytest.fixture
def episode(tmp_path: Path) -> Path:
    return write_episodes(tmp_path / "long", 1, frames=40)


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process, pytest's log among them, grows beyond 64 kB, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_mosaics_are_those_of_the_frames(tmp_path: Path) -> None:
    write_episodes(tmp_path / "e", 2)
    footage = read(tmp_path / "e", tmp_path / "run", workers=2)
    frames = [read_frames(folder) for folder in find_episodes(tmp_path / "e")]
    mosaic = contract_of(SMALL, ROBOT, frames[0].provenance).mosaic
    for number, one in enumerate(frames):
        for row in range(8):
            images = {name: images[row] for name, images in one.images.items()}
            assert np.array_equal(footage.mosaics[8 * number + row], to_bytes(mosaic_pixels(images, mosaic))[0])
        assert np.array_equal(footage.demonstrations[number].positions, one.positions)
    assert not footage.report.lines() and not any(shown.open_end for shown in footage.demonstrations)


def test_unfit_episodes_are_left_out_and_named(tmp_path: Path) -> None:
    write_episodes(tmp_path / "e", 3, frames=6)
    (bag,) = (tmp_path / "e" / "episode_1").glob("*.mcap")
    bag.write_bytes(bag.read_bytes()[:2000])
    footage = read(tmp_path / "e", tmp_path / "run")
    assert [shown.name for shown in footage.demonstrations] == ["episode_0", "episode_2"] and len(footage.mosaics) == 12
    (line,) = footage.report.lines()
    assert line.startswith(f"left out {tmp_path / 'e' / 'episode_1'}: ")
    assert read(tmp_path / "e", tmp_path / "run").report == footage.report, "and said again when nothing is read again"


def test_nothing_fit_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    write_episodes(tmp_path / "e", 2, frames=3)
    with pytest.raises(EpisodeError, match="none of 2 episodes is fit to learn from: no unbroken stretch of 4 frames"):
        read(tmp_path / "e", tmp_path / "run")


def test_what_is_not_chosen_is_counted_by_reason(tmp_path: Path) -> None:
    write_episodes(tmp_path / "good", 1)
    write_episodes(tmp_path / "mute", 2, instruction="")
    write_episodes(tmp_path / "failed", 3, label="failure")
    (tmp_path / "failed" / "episode_2" / "metadata.yaml").unlink()
    chosen = choose_episodes([tmp_path / name for name in ("good", "mute", "failed")])
    assert [path.parent.name for path in chosen.episodes] == ["good"]
    assert counted(chosen.left_out) == (
        "2 without an instruction, 2 labelled failure, 1 cut off (`imagewam record --recover` may save them)"
    )
    with pytest.raises(EpisodeError, match=r"none of 2 episodes .* \(2 without an instruction\)"):
        choose_episodes([tmp_path / "mute"])


def test_space_is_there_before_anything_is_written(tmp_path: Path) -> None:
    array = reserve(tmp_path / "a.npy", np.uint8, (3, 1 << 16))
    assert array.shape == (3, 1 << 16) and (tmp_path / "a.npy").stat().st_blocks * 512 >= 3 << 16
    with pytest.raises(
        DiskError, match=r"b\.npy needs 1000000\.0 GB, .* GB are free; free some space or choose an --out"
    ):
        reserve(tmp_path / "b.npy", np.uint8, (10**9, 10**6))
    assert not (tmp_path / "b.npy").exists()


def test_a_disk_that_fills_up_ends_with_a_word_and_nothing_half(tmp_path: Path, episode: Path) -> None:
    with small_files(), pytest.raises(DiskError, match=r"cannot write .*a\.npy: .*File too large"):
        reserve(tmp_path / "a.npy", np.uint8, (1 << 17,))
    assert not (tmp_path / "a.npy").exists()
    with (
        small_files(),
        pytest.raises(DiskError, match=r"cannot write .*state\.safetensors: .*give the command again"),
        writing(tmp_path / "state.safetensors"),
    ):
        save_file({"weight": torch.zeros(1 << 17)}, tmp_path / "state.safetensors")
    with small_files(), pytest.raises(DiskError, match=r"cannot write .*pixels\.npy"):
        read(episode, tmp_path)
    assert not (tmp_path / "demonstrations.npz").exists()
