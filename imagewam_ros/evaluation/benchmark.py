# SPDX-License-Identifier: Apache-2.0
"""`imagewam evaluate --benchmark`: a policy on LIBERO, LIBERO-Plus or RoboTwin 2.0, a line per task."""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imagewam_ros.benchmarks.libero import ACTION as LIBERO_ACTION
from imagewam_ros.benchmarks.libero import MAX_STEPS, Libero, LiberoConfig
from imagewam_ros.benchmarks.libero import STATE as LIBERO_STATE
from imagewam_ros.benchmarks.robotwin import ACTION as ROBOTWIN_ACTION
from imagewam_ros.benchmarks.robotwin import STATE as ROBOTWIN_STATE
from imagewam_ros.benchmarks.robotwin import Robotwin, RobotwinConfig
from imagewam_ros.benchmarks.trial import Benchmark, ChunkSource, Played, RawSpace
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch, unknown_name
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.data.row_log import make_folder
from imagewam_ros.evaluation.interval import wilson
from imagewam_ros.evaluation.provenance import provenance
from imagewam_ros.evaluation.source import identity
from imagewam_ros.remote.client import RemotePolicy, is_remote, parse_address

ROBOTWIN = {"robotwin_clean": "demo_clean", "robotwin_randomised": "demo_randomized"}
NAMES = (*MAX_STEPS, *ROBOTWIN)
EPISODES = {"libero": 25, "libero_plus": 1, "robotwin": 50}
"""The authors' trials per task."""


def run_benchmark(arguments: argparse.Namespace) -> int:
    """Print a line per task and a total. Returns 0 when it ran to the end: no rate is good or bad in itself."""
    if arguments.episodes is not None and arguments.episodes < 1:
        raise ConfigError(f"--episodes must be positive, found {arguments.episodes}")
    if arguments.out:
        make_folder(arguments.out)
    benchmark = open_benchmark(arguments)
    source = open_raw(arguments.policy, arguments.device, benchmark)
    tasks = benchmark.tasks() if "all" in (arguments.task or ["all"]) else arguments.task
    played: list[Played] = []
    lines = []
    about = {"benchmark": benchmark.name, **identity(arguments.policy), "seed": arguments.seed}
    for task in tasks:
        trials = list(benchmark.play(task, source, arguments.episodes or _episodes(benchmark), arguments.seed))
        lines.append({"task": task, **about, **counted(trials)})
        played += trials
        print(_words(task, lines[-1]), flush=True)
        if arguments.json:
            print(json.dumps(lines[-1]), flush=True)
    kinds = by_category(played)
    for name, row in kinds.items():
        print(_words(name, row))
    total = {"task": "all", **about, **counted(played), "categories": kinds}
    print(_words("all", total))
    if arguments.json:
        print(json.dumps(total))
    if arguments.out:
        data = {"tasks": [*lines, total], "provenance": provenance(), "trials": [asdict(trial) for trial in played]}
        (arguments.out / "benchmark.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf8")
    return 0


def open_benchmark(arguments: argparse.Namespace) -> Benchmark:
    """Return the benchmark that the command names. Raises ConfigError when it is unknown or not installed."""
    name: str = arguments.benchmark
    if name in MAX_STEPS:
        gripper = "env" if is_remote(arguments.policy) else "share"
        return Libero(LiberoConfig(name, gripper=gripper))
    if name in ROBOTWIN:
        if arguments.benchmark_root is None:
            raise ConfigError("RoboTwin runs from its own folder; give --benchmark-root DIR")
        return Robotwin(RobotwinConfig(Path(arguments.benchmark_root).resolve(), ROBOTWIN[name]))
    raise ConfigError(unknown_name("benchmark", name, NAMES))


def open_raw(policy: str, device: str, benchmark: Benchmark) -> ChunkSource:
    """Open a policy that is fed the benchmark's state and whose actions are executed as they are.

    The benchmark's cameras take the names of the policy's, in order. Raises EmbodimentMismatch when their numbers
    or the sizes of state and action differ.
    """
    state, action = _sizes(benchmark)
    if is_remote(policy):
        remote = RemotePolicy(parse_address(policy), tuple(f"action_{i}" for i in range(action)))
        _name_cameras(benchmark, remote.camera_names)
        return remote
    from imagewam_ros.model.checkpoint import load_checkpoint
    from imagewam_ros.model.device import choose_device
    from imagewam_ros.policy import Policy

    directory, device = find_checkpoint(policy), choose_device(device)
    checkpoint = load_checkpoint(directory, device=device)
    sizes = tuple(checkpoint.statistics[name].mean.size for name in ("state", "action"))
    if sizes != (state, action) or any(checkpoint.contract.relative):
        raise EmbodimentMismatch(
            f"{benchmark.name} has {state} state and {action} action numbers, the policy {sizes[0]} and {sizes[1]}"
            f"{', relative ones among them' if any(checkpoint.contract.relative) else ''}; choose one trained for it"
        )
    _name_cameras(benchmark, checkpoint.contract.camera_names)
    return Policy(checkpoint.model, checkpoint.contract, checkpoint.statistics, device, space=RawSpace(state))


def counted(trials: Sequence[Played]) -> dict[str, Any]:
    """Figures of some trials."""
    successes = sum(trial.success for trial in trials)
    interval = [round(bound, 4) for bound in wilson(successes, len(trials))]
    return {"episodes": len(trials), "successes": successes, "interval": interval}


def by_category(trials: Sequence[Played]) -> dict[str, dict[str, Any]]:
    """Figures by kind of perturbation, where there are any."""
    groups: dict[str, list[Played]] = defaultdict(list)
    for trial in trials:
        if trial.category:
            groups[trial.category].append(trial)
    return {name: counted(some) for name, some in sorted(groups.items())}


def _sizes(benchmark: Benchmark) -> tuple[int, int]:
    return (LIBERO_STATE, LIBERO_ACTION) if isinstance(benchmark, Libero) else (ROBOTWIN_STATE, ROBOTWIN_ACTION)


def _episodes(benchmark: Benchmark) -> int:
    if isinstance(benchmark, Libero):
        return EPISODES["libero_plus" if benchmark.perturbed else "libero"]
    return EPISODES["robotwin"]


def _name_cameras(benchmark: Benchmark, names: tuple[str, ...]) -> None:
    if len(names) != len(benchmark.cameras):
        raise EmbodimentMismatch(
            f"{benchmark.name} shows {len(benchmark.cameras)} cameras, the policy wants {', '.join(names)}"
        )
    benchmark.cameras = names


def _words(name: str, row: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in row["interval"])
    return f"{name:<60} {row['successes']:>4}/{row['episodes']:<4} {low:5.1f} to {high:5.1f} %"
