# SPDX-License-Identifier: Apache-2.0
"""`imagewam record`: demonstrations by the scripted expert, episodes of the running graph, or what a crash left.

--expert lets the simulator's scripted expert demonstrate, one episode per seed. --live records
the running graph, by keyboard. --recover makes readable bags of recordings that were cut off;
--label judges recordings afterwards, also those of `ros2 bag record`.
"""

import argparse
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml
from tqdm import tqdm

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, EpisodeError
from imagewam_ros.core.schema import JointState
from imagewam_ros.data.bag import METADATA
from imagewam_ros.data.bag_label import LABELS, adopt, is_foreign, label_episode
from imagewam_ros.data.episode import FIRST_SEED as FIRST_SEED
from imagewam_ros.data.episode import EpisodeWriter, Provenance, read_provenance
from imagewam_ros.data.recover import cut_off, recover
from imagewam_ros.data.row_log import make_folder
from imagewam_ros.data.workers import side_by_side
from imagewam_ros.domain import use_domain
from imagewam_ros.graph import Death, Process, Ref, Value, settings
from imagewam_ros.supervisor import Supervisor

if TYPE_CHECKING:
    from imagewam_ros.sim.cell import Cell


class Recorded(NamedTuple):
    """One episode on disk; success is the simulator's verdict."""

    seed: int
    success: bool
    frames: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam record`."""
    parser.add_argument("--expert", action="store_true", help="the simulator's scripted expert demonstrates")
    parser.add_argument("--live", action="store_true", help="record the running graph; keys start, stop and label")
    parser.add_argument(
        "--recover", type=Path, metavar="PATH", help="finish cut-off recordings in or under this folder"
    )
    parser.add_argument("--label", choices=LABELS, help="label the recordings named by --episode")
    parser.add_argument("--episode", type=Path, nargs="+", default=(), help="recordings to label; any rosbag2 folder")
    parser.add_argument(
        "--instruction",
        default="",
        help="what is done in the episodes, in plain words; the expert, told what its task does not know, stays",
    )
    parser.add_argument("--action-topic", default="executor/command", help="of bags that other programs recorded")
    parser.add_argument("--period-s", type=float, default=0.05, help="of the policy, for such bags")
    parser.add_argument(
        "--first-row-offset", type=float, default=1.0, help="for such bags: periods to the first action"
    )
    parser.add_argument("--episodes", type=int, default=700, help="how many demonstrations")
    parser.add_argument("--out", type=Path, help="folder for the episodes; whole ones in it are kept")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help=f"of the first episode, from {FIRST_SEED} up")
    parser.add_argument("--domain", type=int, help="ROS domain of the running graph (default: ROS_DOMAIN_ID, or 0)")
    parser.add_argument("--namespace", default="", help="namespace of the running graph")
    parser.add_argument(
        "--set", nargs="+", default=(), metavar="name:=value", help="the recorder's parameters: period_s:=0.0333"
    )
    parser.add_argument("--task", default="tray_lift", help="task of the simulated cell")
    parser.add_argument("--robot", default="sim_cell", help="robot name or path to its YAML")
    parser.add_argument("--workers", type=int, default=2, help="processes that record side by side")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Record or recover. The expert's exit code is 0 when it succeeded in at least nine of ten."""
    if arguments.recover:
        return _recover(arguments)
    if arguments.label:
        return _label(arguments)
    if arguments.expert == arguments.live:
        raise ConfigError("say who demonstrates: --expert records the scripted expert, --live the running graph")
    if arguments.out is None:
        raise ConfigError("say where the episodes go: --out FOLDER")
    return _record_expert(arguments) if arguments.expert else _record_live(arguments)


def _recover(arguments: argparse.Namespace) -> int:
    """Make whole what was cut off; 1 when one cannot be recovered."""
    torn = cut_off(arguments.recover)
    if not torn:
        raise EpisodeError(f"no recording in {arguments.recover} is cut off; check the path")
    results: dict[str, int] = {}
    for folder in torn:
        try:
            found = recover(folder)
        except EpisodeError as error:
            print(f"cannot recover {folder}: {error}")
            continue
        results[str(folder)] = found.messages
        print(
            f"{folder}: {found.messages} messages; {found.lost_bytes} bytes behind the last whole block were cut away"
        )
    print(f"{len(results)} of {len(torn)} recordings recovered; label them with --label success --episode FOLDER")
    if arguments.json:
        print(json.dumps({"recovered": len(results), "failed": len(torn) - len(results)}))
    return 0 if len(results) == len(torn) else 1


def _label(arguments: argparse.Namespace) -> int:
    """Label recordings; bags that another program recorded become episodes first."""
    if not arguments.episode:
        raise ConfigError(f"say what to label {arguments.label}: --episode FOLDER")
    for folder in arguments.episode:
        if is_foreign(folder):
            if not arguments.instruction:
                raise ConfigError(f"{folder} was recorded by another program; say what was done: --instruction TEXT")
            robot, period_ns = load_embodiment(arguments.robot), round(arguments.period_s * 1e9)
            adopt(folder, robot, arguments.instruction, arguments.action_topic, period_ns, arguments.first_row_offset)
        about = label_episode(folder, arguments.label, arguments.instruction)
        print(f"{folder}: {about.label}, {about.instruction!r}")
    return 0


def _record_live(arguments: argparse.Namespace) -> int:
    """Start the recorder beside the running graph and obey the keyboard until `q`."""
    from imagewam_ros.nodes import recorder_keys

    if arguments.domain is not None:
        use_domain(arguments.domain)
    parameters: dict[str, Value | tuple[str, ...] | Ref] = {
        "robot": arguments.robot,
        "directory": str(arguments.out.resolve()),
        "instruction": arguments.instruction,
        **dict(_assignment(text) for text in arguments.set),
    }
    process = Process("recorder", "recorder_node", Death.ENDS_GRAPH, parameters)
    values = settings({"namespace": arguments.namespace})
    with Supervisor((process,), values, lambda name, line: print(f"{name}: {line}", flush=True)) as supervisor:
        done = threading.Event()
        listening = threading.Thread(target=_pass_on, args=(supervisor, done))
        listening.start()
        try:
            return recorder_keys.main(arguments.namespace)
        finally:
            done.set()
            listening.join()


def _assignment(text: str) -> tuple[str, Value]:
    """Read name:=value. Raises ConfigError."""
    name, separator, value = text.partition(":=")
    found = yaml.safe_load(value) if value else None
    if not name or not separator or not isinstance(found, str | int | float | bool):
        raise ConfigError(f"--set {text!r}: expected name:=value, for example recording.image_format:=jpeg")
    return name, found


def _pass_on(supervisor: Supervisor, done: threading.Event) -> None:
    while not done.is_set():
        supervisor.poll()


def _record_expert(arguments: argparse.Namespace) -> int:
    if arguments.seed < FIRST_SEED:
        raise ConfigError(
            f"seed {arguments.seed} belongs to evaluation; demonstrations use seeds from {FIRST_SEED} up, "
            "so that no policy is tested on what it saw"
        )
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    make_folder(arguments.out)
    missing = [seed for seed in seeds if not (episode_folder(arguments.out, seed) / METADATA).exists()]
    _check_kept(arguments, [seed for seed in seeds if seed not in set(missing)])
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


def _check_kept(arguments: argparse.Namespace, kept: Sequence[int]) -> None:
    """Raise ConfigError where the folder holds episodes of another task, robot or instruction; it holds one kind."""
    for folder in [episode_folder(arguments.out, seed) for seed in kept[:1]]:
        about = read_provenance(folder)
        wanted = {"task": arguments.task, "robot": load_embodiment(arguments.robot).name}
        wanted |= {"instruction": arguments.instruction} if arguments.instruction else {}
        for name, value in wanted.items():
            if getattr(about, name) != value:
                raise ConfigError(
                    f"{folder} is of {name} {getattr(about, name)!r}, asked is {value!r}; choose another --out"
                )


def episode_folder(out: Path, seed: int) -> Path:
    """Where the demonstration of `seed` lies."""
    return out / f"episode_{seed}"


def record_episode(seed: int, out: Path, task: str, robot: str, instruction: str = "") -> Recorded:
    """Let the expert do what the seed, or `instruction`, asks for. A cut-off recording of the seed is replaced."""
    from imagewam_ros.sim.cell import Cell
    from imagewam_ros.sim.demonstration import demonstrate

    cell = _cells.get((task, robot)) or Cell(load_embodiment(robot), task)
    _cells[task, robot] = cell
    shown = demonstrate(cell, seed, instruction=instruction or None)
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


def _record_all(seeds: Sequence[int], arguments: argparse.Namespace) -> Iterator[Recorded]:
    one = partial(
        record_episode,
        out=arguments.out,
        task=arguments.task,
        robot=arguments.robot,
        instruction=arguments.instruction,
    )
    return side_by_side(one, seeds, arguments.workers)
