# SPDX-License-Identifier: Apache-2.0
"""`imagewam replay`: what a bag recorded, through the code of today, and which way of merging suits its chunks.

Recorded chunks go through the executor with recorded time, and the commands are compared with those
recorded; with --policy recorded observations go through a policy, and its chunks are compared. Then
merge rule, execute horizon and latency skip are swept over the chunks. None of this needs ROS; --live
sends the chunks to a running cell instead.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from imagewam_ros.control import advisor
from imagewam_ros.control.executor import ExecutorConfig
from imagewam_ros.core.config import build
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.data.run_log import RunLog, read_run
from imagewam_ros.replay_commands import compare, recording

SHOWN_TRIALS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam replay`."""
    parser.add_argument("bag", type=Path, help="folder of an episode, or of any rosbag2 recording of a cell")
    parser.add_argument("--robot", help="robot name or path of its YAML (default: the recorded one)")
    parser.add_argument("--namespace", default="", help="of the recorded cell, where the bag holds several")
    parser.add_argument(
        "--set", nargs="+", default=(), metavar="name:=value", help="the executor's parameters: rule:=latest"
    )
    parser.add_argument("--tolerance", type=float, default=1e-6, help="of commands, rad or m (default: %(default)s)")
    parser.add_argument("--policy", type=Path, help="checkpoint: infer the recorded observations again")
    parser.add_argument("--device", default="cpu", help="where it infers (default: %(default)s)")
    parser.add_argument(
        "--chunk-tolerance", type=float, default=1e-3, help="of chunks, rad or m (default: %(default)s)"
    )
    parser.add_argument("--no-sweep", action="store_true", help="compare only")
    parser.add_argument("--live", action="store_true", help="send the recorded chunks to the running cell, as replay")
    parser.add_argument("--use-sim-time", action="store_true", help="the running cell takes its time from /clock")
    parser.add_argument("--domain", type=int, help="ROS domain of the running cell (default: ROS_DOMAIN_ID, or 0)")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Replay. Returns 0 when everything that was compared agrees, 1 where it diverges."""
    log = read_run(arguments.bag, arguments.namespace)
    if not log.chunks:
        raise ConfigError(
            f"{arguments.bag} holds no chunks; was policy/action_chunk recorded? Demonstrations of the "
            "scripted expert have none"
        )
    name = arguments.robot or log.robot
    if not name:
        raise ConfigError(f"{arguments.bag} does not say which robot it is of; name it with --robot")
    robot = load_embodiment(name)
    if arguments.live:
        return _live(arguments, log)
    config = executor_config(log.parameters, arguments.set)
    print(summary(log, robot))
    result: dict[str, Any] = {"bag": str(arguments.bag), "robot": robot.name, "chunks": len(log.chunks)}
    compared = compare(log, robot, config, arguments.tolerance) if log.commands else None
    print(f"commands: {compared}" if compared else "commands: none were recorded, so there is nothing to compare")
    result |= {"commands": len(log.commands), **(compared.to_dict() if compared else {"diverged": False})}
    diverged = compared is not None and compared.diverged
    if arguments.policy is not None:
        diverged |= _infer(arguments, robot, log, result)
    if not arguments.no_sweep:
        _sweep(robot, log, config, result)
    if arguments.json:
        print(json.dumps(result))
    return int(diverged)


def executor_config(recorded: Mapping[str, Any], chosen: "list[str] | tuple[str, ...]") -> ExecutorConfig:
    """Return the recorded parameters of the executor, or its defaults, with those that the user chose.

    Raises ConfigError.
    """
    values = dict(recorded.get("control", {}))
    for text in chosen:
        name, separator, value = text.partition(":=")
        if not separator:
            raise ConfigError(f"--set {text!r}: expected name:=value, for example rule:=latest")
        values[name] = yaml.safe_load(value)
    return build(ExecutorConfig, values, "executor")


def summary(log: RunLog, robot: Embodiment) -> str:
    """Return one line on what the bag holds."""
    judged = [event for event in log.events if event.chunk is not None]
    accepted = sum(event.trigger == "accepted" for event in judged)
    verdicts = f"{accepted} accepted, {len(judged) - accepted} refused" if judged else "verdicts not recorded"
    parameters = "recorded" if log.parameters else "not recorded, so the defaults are taken"
    return (
        f"{log.directory}: robot {robot.name!r}, {len(log.chunks)} chunks ({verdicts}), {len(log.commands)} commands; "
        f"parameters {parameters}"
    )


def _infer(arguments: argparse.Namespace, robot: Embodiment, log: RunLog, result: dict[str, Any]) -> bool:
    """Compare the policy's chunks with those recorded. Returns whether they diverge."""
    from imagewam_ros.replay_policy import infer_again  # torch is loaded only where it is wanted

    found = infer_again(arguments.bag, arguments.policy, robot, arguments.device, log, arguments.chunk_tolerance)
    print(f"policy: {found}")
    result["policy"] = found.to_dict()
    return found.diverged


def _sweep(robot: Embodiment, log: RunLog, config: ExecutorConfig, result: dict[str, Any]) -> None:
    """Print the best settings and the recommendation."""
    played = recording(log, robot)
    trials = []
    configs = advisor.settings(config)
    for setting in tqdm(configs, desc="sweeping", unit="setting", leave=False):
        trials.append(advisor.trial(robot, played, setting))
    advice = advisor.recommend(trials)
    now = next(trial for trial in trials if trial.config == config)
    shown = sorted(trials, key=lambda t: t.stale)[:SHOWN_TRIALS]
    print(f"\nof {len(trials)} settings over {played.duration_s:.1f} s, as recorded and those least stale:")
    for trial in [now, *(trial for trial in shown if trial is not now)]:
        print(f"  {trial}{'  as recorded' if trial is now else ''}{'  recommended' if trial is advice.trial else ''}")
    chosen = advice.trial.config
    wanted = {name: getattr(chosen, name) for name in advisor.SWEPT}
    print(f"recommended: {'  '.join(f'control.{name}:={value}' for name, value in wanted.items())}\n  {advice.reason}")
    if advice.warning:
        print(f"  {advice.warning}")
    result["recommendation"] = {**wanted, **advice.trial.figures(), "reason": advice.reason, "warning": advice.warning}
    result["settings"] = len(trials)


def _live(arguments: argparse.Namespace, log: RunLog) -> int:
    from imagewam_ros.domain import use_domain
    from imagewam_ros.nodes.replay_node import replay_live

    if arguments.domain is not None:
        use_domain(arguments.domain)
    return replay_live(log, arguments.namespace, arguments.use_sim_time)
