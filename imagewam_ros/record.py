# SPDX-License-Identifier: Apache-2.0
"""`imagewam record --expert`: the simulator's scripted expert makes demonstrations, one episode per seed."""

import argparse
import json
import multiprocessing
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import JointState
from imagewam_ros.data.episode import EpisodeWriter, Provenance

if TYPE_CHECKING:
    from imagewam_ros.sim.cell import Cell

FIRST_SEED = 1_000_000
"""Demonstrations use seeds from here up, evaluations use those below."""


class Recorded(NamedTuple):
    """One episode on disk; success is the simulator's verdict."""

    seed: int
    success: bool
    frames: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam record`."""
    parser.add_argument("--expert", action="store_true", help="the simulator's scripted expert demonstrates")
    parser.add_argument("--episodes", type=int, default=700, help="how many demonstrations")
    parser.add_argument("--out", type=Path, required=True, help="folder for the episodes; whole ones in it are kept")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help=f"of the first episode, from {FIRST_SEED} up")
    parser.add_argument("--task", default="tray_lift", help="task of the simulated cell")
    parser.add_argument("--robot", default="sim_cell", help="robot name or path to its YAML")
    parser.add_argument("--workers", type=int, default=2, help="processes that record side by side")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Record demonstrations. Returns 0 when the expert succeeded in at least nine of ten."""
    if not arguments.expert:
        raise ConfigError("say who demonstrates: --expert records the simulator's scripted expert")
    if arguments.seed < FIRST_SEED:
        raise ConfigError(
            f"seed {arguments.seed} belongs to evaluation; demonstrations use seeds from {FIRST_SEED} up, "
            "so that no policy is tested on what it saw"
        )
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    arguments.out.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not (episode_folder(arguments.out, seed) / "metadata.yaml").exists()]
    done = list(tqdm(_record_all(missing, arguments), total=len(missing), unit="episode", desc="recording"))
    successes = sum(one.success for one in done)
    print(f"{len(done)} episodes recorded to {arguments.out}, {successes} successful, {len(seeds) - len(missing)} kept")
    if arguments.json:
        frames = sum(one.frames for one in done)
        print(
            json.dumps(
                {"recorded": len(done), "successes": successes, "frames": frames, "kept": len(seeds) - len(done)}
            )
        )
    return 0 if successes >= 0.9 * len(done) else 1


def episode_folder(out: Path, seed: int) -> Path:
    """Where the demonstration of `seed` lies."""
    return out / f"episode_{seed}"


def record_episode(seed: int, out: Path, task: str, robot: str) -> Recorded:
    """Let the expert do one episode and write it. A cut-off recording of the same seed is replaced."""
    from imagewam_ros.sim.cell import Cell
    from imagewam_ros.sim.demonstration import demonstrate

    cell = _cells.get((task, robot)) or Cell(load_embodiment(robot), task)
    _cells[task, robot] = cell
    shown = demonstrate(cell, seed)
    folder = episode_folder(out, seed)
    if folder.exists():
        shutil.rmtree(folder)
    about = Provenance.of(
        cell.embodiment, shown.instruction, shown.period_ns, task=task, seed=seed, operator="scripted expert"
    )
    with EpisodeWriter(folder, about) as writer:
        for row, stamp in enumerate(shown.stamps_ns.tolist()):
            for name, images in shown.images.items():
                writer.image(name, stamp, images[row])
            writer.joints(JointState(stamp, shown.joint_names, shown.positions[row], shown.velocities[row]))
            writer.action(stamp, shown.targets[row])
        writer.finish("success" if shown.success else "failure")
    return Recorded(seed, shown.success, len(shown.stamps_ns))


_cells: dict[tuple[str, str], "Cell"] = {}
"""One cell per worker process: building it costs more than resetting it."""


def _record_all(seeds: Iterable[int], arguments: argparse.Namespace) -> Iterator[Recorded]:
    one = partial(record_episode, out=arguments.out, task=arguments.task, robot=arguments.robot)
    if arguments.workers < 2:
        yield from map(one, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        yield from pool.imap_unordered(one, seeds)
