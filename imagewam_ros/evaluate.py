# SPDX-License-Identifier: Apache-2.0
"""`imagewam evaluate`: how often a policy succeeds on seeds that were not in training, and whether it looks.

In process, cell and executor run on the simulation's clock, in several processes side by side.
With --mode graph the same seeds are played by the ROS graph of `imagewam demo`.
"""

import argparse
import hashlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import CheckpointError, ConfigError, GraphError, unknown_name
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.evaluation.interval import paired_p_value, wilson
from imagewam_ros.record import FIRST_SEED

if TYPE_CHECKING:
    from imagewam_ros.evaluation.trial import Outcome, TrialConfig

MODES = ("process", "graph")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam evaluate`."""
    from imagewam_ros.evaluation.trial import TrialConfig

    defaults = TrialConfig()
    parser.add_argument("--episodes", type=int, default=50, help="per condition; episode k uses seed S + k")
    parser.add_argument("--seed", type=int, default=1000, help=f"S, of the first episode, below {FIRST_SEED}")
    parser.add_argument("--policy", default="tiny", help="checkpoint: a name in models/ or a directory")
    parser.add_argument("--against", help="a second checkpoint on the same seeds, compared in pairs")
    parser.add_argument(
        "--task", nargs="+", default=["tray_lift"], help="tasks of the simulated cell, one after the other; or all"
    )
    parser.add_argument("--robot", default="sim_cell", help="robot name or path to its YAML")
    parser.add_argument("--mode", default="process", help="process, or graph for the ROS graph")
    parser.add_argument(
        "--condition",
        nargs="+",
        default=["all"],
        help="normal, grey, frozen, blind, left_only, right_only (or all, meaning those), wrong_instruction",
    )
    parser.add_argument("--graph-episodes", type=int, default=0, help="also play this many through the ROS graph")
    parser.add_argument("--latency", type=float, default=defaults.latency_s, help="s from shutter to chunk, in process")
    parser.add_argument(
        "--every", type=int, default=defaults.every_frames, help="observe every so many frames of 20 Hz"
    )
    parser.add_argument("--out", type=Path, help="folder for report.html, report.json and videos of failures")
    parser.add_argument("--videos", type=int, default=3, help="failures to film, with --out")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--json", action="store_true", help="end with one line per task for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print a row per condition of each task. Returns 0 when all succeeded in at least nine of ten."""
    from imagewam_ros.sim.tasks import TASKS, find_task

    if arguments.mode not in MODES:
        raise ConfigError(unknown_name("mode", arguments.mode, MODES))
    names = list(TASKS) if "all" in arguments.task else list(dict.fromkeys(arguments.task))
    for name in names:
        find_task(name)
    several = len(names) > 1
    codes = []
    for name in names:
        print(f"task {name}")
        out = arguments.out / name if arguments.out and several else arguments.out
        codes.append(_evaluate(argparse.Namespace(**{**vars(arguments), "task": name, "out": out})))
    return max(codes)


def _evaluate(arguments: argparse.Namespace) -> int:
    """Evaluate one task."""
    from imagewam_ros.evaluation.trial import TrialConfig

    seeds = checked_seeds(arguments.seed, arguments.episodes)
    policy = find_checkpoint(arguments.policy)
    about: dict[str, Any] = {"task": arguments.task, "mode": arguments.mode, "checkpoint": checkpoint_hash(policy)}
    rows: dict[str, dict[str, Any]] = {}
    outcomes: dict[str, list[Outcome]] = {}
    if arguments.mode == "process":
        config = TrialConfig(arguments.latency, arguments.every)
        about |= {"latency_s": config.latency_s, "every_frames": config.every_frames}
        outcomes = trials(policy, arguments, _conditions(arguments.condition), seeds, config)
        rows = {name: summary(some) for name, some in outcomes.items()}
        if arguments.against:
            other = trials(find_checkpoint(arguments.against), arguments, ["normal"], seeds, config)
            rows["against"] = summary(other["normal"])
            about["paired_p"] = compare(outcomes["normal"], other["normal"])
    graph = arguments.graph_episodes if arguments.mode == "process" else arguments.episodes
    if graph:
        rows["graph"] = play_graph(policy, arguments, graph)
    print(table(rows))
    first = rows.get("normal") or next(iter(rows.values()))
    line = {**about, **{key: first[key] for key in ("episodes", "successes", "interval")}}
    line |= {"seed": arguments.seed, "rows": rows}
    if arguments.out:
        _report(arguments, policy, line, outcomes)
    if arguments.json:
        print(json.dumps(line))
    return 0 if first["successes"] >= 0.9 * first["episodes"] else 1


def checked_seeds(first: int, episodes: int) -> range:
    """Return the seeds of an evaluation. Raises ConfigError for those of demonstrations."""
    seeds = range(first, first + episodes)
    if episodes < 1 or first < 0 or seeds[-1] >= FIRST_SEED:
        raise ConfigError(
            f"asked for seeds {first} to {first + episodes - 1}: evaluation uses 0 to {FIRST_SEED - 1}, "
            "those from there up are for demonstrations; choose a smaller --seed"
        )
    return seeds


def trials(
    policy: Path, arguments: argparse.Namespace, conditions: Sequence[str], seeds: range, config: "TrialConfig"
) -> dict[str, "list[Outcome]"]:
    """Outcomes by condition, each in the order of the seeds."""
    jobs = [(condition, seed) for condition in conditions for seed in seeds]
    found: dict[str, list[Outcome]] = {condition: [] for condition in conditions}
    setting = (policy, arguments.task, arguments.robot, config)
    bar = tqdm(
        _play(jobs, setting, min(arguments.workers, len(jobs))), total=len(jobs), unit="trial", desc="evaluating"
    )
    for outcome in bar:
        found[outcome.condition].append(outcome)
        done = found[outcome.condition]
        bar.set_postfix_str(f"{outcome.condition} {sum(o.success for o in done)}/{len(done)}", refresh=False)
    return {condition: sorted(some, key=lambda outcome: outcome.seed) for condition, some in found.items()}


def summary(outcomes: Sequence["Outcome"]) -> dict[str, Any]:
    """Figures of one condition."""
    successes = sum(outcome.success for outcome in outcomes)
    solved = [outcome.duration_s for outcome in outcomes if outcome.success]
    return {
        "episodes": len(outcomes),
        "successes": successes,
        "interval": [round(bound, 4) for bound in wilson(successes, len(outcomes))],
        "mean_time_s": round(sum(solved) / len(solved), 2) if solved else None,
        "refused_chunks": sum(outcome.refused for outcome in outcomes),
        "limit_violations": sum(outcome.violations for outcome in outcomes),
        "failed_seeds": [outcome.seed for outcome in outcomes if not outcome.success][:50],
    }


def compare(first: Sequence["Outcome"], second: Sequence["Outcome"]) -> float:
    """P-value of the paired test that both succeed equally often on the same seeds."""
    pairs = [(a.success, b.success) for a, b in zip(first, second, strict=True)]
    return round(paired_p_value(pairs.count((True, False)), pairs.count((False, True))), 4)


def play_graph(policy: Path, arguments: argparse.Namespace, episodes: int) -> dict[str, Any]:
    """Play the first seeds through the ROS graph. Raises GraphError when it does not run to the end."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "imagewam_ros", "demo", "--episodes", str(episodes), "--out", folder, "--json"]
        words += ["--seed", str(arguments.seed), "--policy", str(policy), "--task", arguments.task]
        words += ["--robot", arguments.robot]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or not lines or not lines[-1].startswith("{"):
        raise GraphError(f"the graph ended with {done.returncode}; `imagewam demo --seed {arguments.seed}` shows why")
    played: dict[str, Any] = json.loads(lines[-1])
    return {**played, "interval": [round(bound, 4) for bound in wilson(played["successes"], played["episodes"])]}


def checkpoint_hash(directory: Path) -> str:
    """First 16 hex digits of the SHA-256 over configuration and weights. Raises CheckpointError."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f"no {name} in {directory}; is it a checkpoint directory?")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def table(rows: dict[str, dict[str, Any]]) -> str:
    """One line per condition."""
    lines = [f"{'condition':<12}{'success':>10}{'95 % interval':>20}{'mean time':>12}{'violations':>12}"]
    for name, row in rows.items():
        low, high = (100 * bound for bound in row["interval"])
        mean = row.get("mean_time_s")
        lines.append(
            f"{name:<12}{row['successes']:>5}/{row['episodes']:<4}{f'{low:.1f} to {high:.1f} %':>20}"
            f"{'-' if mean is None else f'{mean:.2f} s':>12}{row['limit_violations']:>12}"
        )
    return "\n".join(lines)


def _report(
    arguments: argparse.Namespace, policy: Path, line: dict[str, Any], outcomes: dict[str, "list[Outcome]"]
) -> None:
    from imagewam_ros.evaluation.report import film_failures, write_report
    from imagewam_ros.evaluation.trial import TrialConfig

    failed = [outcome.seed for outcome in outcomes.get("normal", ()) if not outcome.success][: arguments.videos]
    config = TrialConfig(arguments.latency, arguments.every)
    arguments.out.mkdir(parents=True, exist_ok=True)
    videos = film_failures(policy, arguments.task, arguments.robot, config, failed, arguments.out) if failed else []
    print(f"wrote {write_report(arguments.out, line, outcomes, videos)}")


def _conditions(asked: Sequence[str]) -> list[str]:
    from imagewam_ros.evaluation.drivers import CONDITIONS, STANDARD

    for name in asked:
        if name not in CONDITIONS and name != "all":
            raise ConfigError(unknown_name("condition", name, [*CONDITIONS, "all"]))
    return list(STANDARD) if "all" in asked else list(asked)


Setting = tuple[Path, str, str, "TrialConfig"]
Job = tuple[str, int]


class _Worker:
    """What one process keeps from trial to trial."""

    def __init__(self, setting: Setting) -> None:
        import torch

        from imagewam_ros.evaluation.drivers import MEAN_OF, mean_demonstration
        from imagewam_ros.policy import Policy
        from imagewam_ros.sim.cell import Cell

        torch.set_num_threads(1)
        policy, task, robot, self.config = setting
        self.cell = Cell(load_embodiment(robot), task)
        self.policy = Policy.load(policy, self.cell.embodiment)
        self.mean = mean_demonstration(self.cell, range(FIRST_SEED, FIRST_SEED + MEAN_OF))

    def __call__(self, job: Job) -> "Outcome":
        from imagewam_ros.evaluation.drivers import make_driver
        from imagewam_ros.evaluation.trial import run_trial

        condition, seed = job
        return run_trial(self.cell, make_driver(condition, self.policy, self.mean), condition, seed, self.config)


_worker: list[_Worker] = []


def _play(jobs: Sequence[Job], setting: Setting, workers: int) -> Iterator["Outcome"]:
    if workers < 2:
        yield from map(_Worker(setting), jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers, _set_up, (setting,)) as pool:
        yield from pool.imap_unordered(_one, jobs)


def _set_up(setting: Setting) -> None:
    _worker[:] = [_Worker(setting)]


def _one(job: Job) -> "Outcome":
    return _worker[0](job)
