# SPDX-License-Identifier: Apache-2.0
"""`imagewam evaluate`: how often a policy succeeds on seeds that were not in training, and whether it looks.

In process, cell and executor run on the simulation's clock, in several processes or machines side by side. With
--mode graph the same seeds are played by the ROS graph of `imagewam demo`. --real judges trials on a running robot,
--benchmark plays LIBERO or RoboTwin.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from imagewam_ros.core.errors import ConfigError, GraphError, unknown_name
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.data.row_log import make_folder
from imagewam_ros.evaluation.interval import paired_interval, paired_p_value, wilson
from imagewam_ros.evaluation.source import identity
from imagewam_ros.record import FIRST_SEED
from imagewam_ros.remote.client import is_remote

if TYPE_CHECKING:
    from imagewam_ros.evaluation.trial import Outcome
    from imagewam_ros.evaluation.workers import Setting

MODES = ("process", "graph")
EPISODES, SEED = 50, 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam evaluate`."""
    from imagewam_ros.evaluation.trial import TrialConfig

    defaults = TrialConfig()
    parser.add_argument(
        "--episodes", type=int, help=f"per condition, {EPISODES} unless given; episode k uses seed S + k"
    )
    parser.add_argument(
        "--seed",
        type=int,
        help=f"S, {SEED} unless given, below {FIRST_SEED}; 0 with --benchmark, its standard scenes; drawn with --real",
    )
    parser.add_argument(
        "--policy", default="tiny", help="checkpoint (a name in models/ or a directory), or a server: ws://host:port"
    )
    parser.add_argument("--against", help="a second policy on the same seeds, compared in pairs")
    parser.add_argument(
        "--task", nargs="+", default=(), help="tasks, one after the other, or all (of the cell: tray_lift unless given)"
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
    parser.add_argument("--videos", type=int, default=3, help="failures to film per task, with --out")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side, on all machines together")
    parser.add_argument("--cluster", default="", help="address of a Ray cluster, auto, or local to start one here")
    parser.add_argument("--benchmark", help="play LIBERO or RoboTwin 2.0 instead: libero_10, robotwin_clean, ...")
    parser.add_argument("--benchmark-root", type=Path, help="checkout of RoboTwin 2.0 with its assets")
    parser.add_argument("--device", default="cpu", help="of benchmarks and of --real: auto, cpu, cuda or cuda:N")
    parser.add_argument("--real", action="store_true", help="judge trials on the running graph, blind with --against")
    parser.add_argument("--instruction", default="", help="what the policy shall do, with --real")
    parser.add_argument("--timeout", type=float, default=30.0, help="s of one trial, with --real")
    parser.add_argument(
        "--reference", type=Path, help="picture of the start pose, with --real (default: the first start)"
    )
    parser.add_argument("--domain", type=int, help="ROS domain of the running graph (default: ROS_DOMAIN_ID, or 0)")
    parser.add_argument("--namespace", default="", help="namespace of the running graph")
    parser.add_argument("--use-sim-time", action="store_true", help="take the time from /clock, with --real")
    parser.add_argument("--json", action="store_true", help="end with one line per task for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print a row per condition of each task. Returns 0 when all succeeded in at least nine of ten."""
    from imagewam_ros.sim.tasks import TASKS, find_task

    if arguments.real:
        from imagewam_ros.evaluation.real_session import run_session

        return run_session(arguments)
    if arguments.seed is None:
        arguments.seed = 0 if arguments.benchmark else SEED
    if arguments.benchmark:
        from imagewam_ros.evaluation.benchmark import run_benchmark

        return run_benchmark(arguments)
    if arguments.out:
        make_folder(arguments.out)
    arguments.episodes = EPISODES if arguments.episodes is None else arguments.episodes
    check_mode(arguments)
    names = list(TASKS) if "all" in arguments.task else list(dict.fromkeys(arguments.task or ["tray_lift"]))
    for name in names:
        find_task(name)
    seeds = checked_seeds(arguments.seed, arguments.episodes)
    lines, outcomes = [], {}
    for name in names:
        print(f"task {name}")
        line, outcomes[name] = evaluate_task(arguments, name, seeds)
        lines.append(line)
        print(table(line["rows"]), flush=True)
    if arguments.out:
        _report(arguments, lines, outcomes)
    if arguments.json:
        print("\n".join(map(json.dumps, lines)), flush=True)
    return 0 if all(line["successes"] >= 0.9 * line["episodes"] for line in lines) else 1


def check_mode(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for a mode that is unknown or cannot play what is asked."""
    if arguments.mode not in MODES:
        raise ConfigError(unknown_name("mode", arguments.mode, MODES))
    if is_remote(arguments.policy) and (arguments.mode == "graph" or arguments.graph_episodes):
        raise ConfigError("the ROS graph runs checkpoints, not servers; evaluate a server with --mode process")
    if arguments.mode == "graph" and (arguments.against or set(arguments.condition) - {"all", "normal"}):
        raise ConfigError(
            "the ROS graph plays one policy under normal conditions; spoilt images or words (--condition) and the "
            "paired comparison (--against) need --mode process, perhaps with --graph-episodes beside it"
        )


def checked_seeds(first: int, episodes: int) -> range:
    """Return the seeds of an evaluation. Raises ConfigError for those of demonstrations."""
    seeds = range(first, first + episodes)
    if episodes < 1 or first < 0 or seeds[-1] >= FIRST_SEED:
        raise ConfigError(
            f"asked for seeds {first} to {first + episodes - 1}: evaluation uses 0 to {FIRST_SEED - 1}, "
            "those from there up are for demonstrations; choose a smaller --seed"
        )
    return seeds


def evaluate_task(
    arguments: argparse.Namespace, task: str, seeds: range
) -> tuple[dict[str, Any], dict[str, "list[Outcome]"]]:
    """Evaluate one task. Returns its line and the outcomes by condition."""
    line: dict[str, Any] = {"task": task, "mode": arguments.mode, **identity(arguments.policy)}
    rows: dict[str, dict[str, Any]] = {}
    outcomes: dict[str, list[Outcome]] = {}
    if arguments.mode == "process":
        setting = _setting(arguments, arguments.policy, task)
        line |= {"latency_s": setting.config.latency_s, "every_frames": setting.config.every_frames}
        wanted = _conditions(arguments.condition, paired=bool(arguments.against))
        outcomes = trials(setting, wanted, seeds, arguments)
        rows = {name: summary(some) for name, some in outcomes.items()}
        if arguments.against:
            other = trials(_setting(arguments, arguments.against, task), ["normal"], seeds, arguments)["normal"]
            rows["against"] = summary(other)
            rival = identity(arguments.against)
            line["paired"] = {
                "against": rival["policy"],
                "checkpoint": rival["checkpoint"],
                **compare(outcomes["normal"], other),
            }
    graph = arguments.graph_episodes if arguments.mode == "process" else arguments.episodes
    if graph:
        rows["graph"] = play_graph(find_checkpoint(arguments.policy), arguments, task, graph)
    first = rows.get("normal") or next(iter(rows.values()))
    line |= {key: first[key] for key in ("episodes", "successes", "interval")}
    return {**line, "seed": arguments.seed, "rows": rows}, outcomes


def trials(
    setting: "Setting", conditions: Sequence[str], seeds: range, arguments: argparse.Namespace
) -> dict[str, "list[Outcome]"]:
    """Outcomes by condition, each in the order of the seeds."""
    from imagewam_ros.evaluation.workers import Job, play

    jobs = [Job(condition, seed) for condition in conditions for seed in seeds]
    found: dict[str, list[Outcome]] = {condition: [] for condition in conditions}
    playing = play(jobs, setting, arguments.workers, arguments.cluster)
    bar = tqdm(playing, total=len(jobs), unit="trial", desc=setting.task)
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


def compare(first: Sequence["Outcome"], second: Sequence["Outcome"]) -> dict[str, Any]:
    """Compare two policies on the same seeds: counts, difference of rates with its interval, p-value."""
    pairs = [(a.success, b.success) for a, b in zip(first, second, strict=True)]
    both, only_first, only_second, neither = (
        pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    interval = paired_interval(both, only_first, only_second, neither)
    return {
        "both": both,
        "only_first": only_first,
        "only_second": only_second,
        "neither": neither,
        "difference": round((only_first - only_second) / len(pairs), 4),
        "interval": [round(bound, 4) for bound in interval],
        "p": round(paired_p_value(only_first, only_second), 4),
    }


def play_graph(policy: Path, arguments: argparse.Namespace, task: str, episodes: int) -> dict[str, Any]:
    """Play the first seeds through the ROS graph. Raises GraphError when it does not run to the end."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "imagewam_ros", "demo", "--episodes", str(episodes), "--out", folder, "--json"]
        words += ["--seed", str(arguments.seed), "--policy", str(policy), "--task", task, "--robot", arguments.robot]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or not lines or not lines[-1].startswith("{"):
        raise GraphError(f"the graph ended with {done.returncode}; `imagewam demo --seed {arguments.seed}` shows why")
    played: dict[str, Any] = json.loads(lines[-1])
    return {**played, "interval": [round(bound, 4) for bound in wilson(played["successes"], played["episodes"])]}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """One line per condition."""
    lines = [f"{'condition':<18}{'success':>10}{'95 % interval':>20}{'mean time':>12}{'violations':>12}"]
    for name, row in rows.items():
        low, high = (100 * bound for bound in row["interval"])
        mean = row.get("mean_time_s")
        lines.append(
            f"{name:<18}{row['successes']:>5}/{row['episodes']:<4}{f'{low:.1f} to {high:.1f} %':>20}"
            f"{'-' if mean is None else f'{mean:.2f} s':>12}{row['limit_violations']:>12}"
        )
    return "\n".join(lines)


def _setting(arguments: argparse.Namespace, policy: str, task: str) -> "Setting":
    from imagewam_ros.evaluation.trial import TrialConfig
    from imagewam_ros.evaluation.workers import Setting

    return Setting(policy, task, arguments.robot, TrialConfig(arguments.latency, arguments.every))


def _report(
    arguments: argparse.Namespace, lines: Sequence[dict[str, Any]], outcomes: dict[str, dict[str, "list[Outcome]"]]
) -> None:
    from imagewam_ros.evaluation.provenance import provenance
    from imagewam_ros.evaluation.report import film_failures, write_report

    videos = {}
    for task, some in outcomes.items():
        failed = [outcome.seed for outcome in some.get("normal", ()) if not outcome.success][: arguments.videos]
        if failed:
            videos[task] = film_failures(_setting(arguments, arguments.policy, task), failed, arguments.out)
    print(f"wrote {write_report(arguments.out, lines, outcomes, videos, provenance())}")


def _conditions(asked: Sequence[str], *, paired: bool) -> list[str]:
    """Names of conditions; what is compared in pairs is the normal one."""
    from imagewam_ros.evaluation.drivers import CONDITIONS, STANDARD

    for name in asked:
        if name not in CONDITIONS and name != "all":
            raise ConfigError(unknown_name("condition", name, [*CONDITIONS, "all"]))
    names = [*(["normal"] if paired else []), *(STANDARD if "all" in asked else ()), *asked]
    return [name for name in dict.fromkeys(names) if name != "all"]
