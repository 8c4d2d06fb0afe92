# SPDX-License-Identifier: Apache-2.0
"""`imagewam doctor`: look a cell over before it moves, on one page with what to do.

Without a running graph the live checks are skipped. Nothing is commanded.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagewam_ros.control.braking import STOP_SHARE, longest_stop_s
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import CheckpointError, ConfigError, EmbodimentMismatch, LimitViolation
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.doctor_checks import machine
from imagewam_ros.doctor_checks.contract import check_contract, read_promise
from imagewam_ros.doctor_checks.description import check_description, check_stop, parse
from imagewam_ros.doctor_checks.finding import Finding, Level, failed, guarded, page, passed, skipped, warned, worst
from imagewam_ros.doctor_checks.pictures import check_pictures
from imagewam_ros.doctor_checks.rollout import check_chunk, check_speed, dummy_observation
from imagewam_ros.doctor_checks.streams import check_streams
from imagewam_ros.domain import use_domain

DEFAULT_POLICY = "tiny"
LATER_CHUNKS = 3
LIVE = ("auto", "never", "required")


@dataclass(frozen=True)
class Request:
    """What to look at. policy: a name, a directory, "none", or "" for the default where there is one.

    live: auto skips what needs a running cell where there is none, required calls that a failure.
    inference loads the policy and asks it for chunks.
    """

    urdf: Path | None = None
    policy: str = ""
    device: str = "auto"
    replan_period_s: float = 0.4
    folder: Path = Path()
    live: str = "auto"
    seconds: float = 5.0
    namespace: str = ""
    inference: bool = True

    def __post_init__(self) -> None:
        if self.seconds <= 0 or not self.folder.is_dir():
            raise ConfigError(f"seconds must be positive and folder exist, found {self.seconds:g} and {self.folder}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to look at."""
    parser.add_argument("--robot", default="sim_cell", help="a name in config/robots, or a YAML (default: %(default)s)")
    parser.add_argument("--urdf", type=Path, help="xacro file of the robot (default: the one that its YAML names)")
    parser.add_argument(
        "--policy", help=f"checkpoint: a name in models, a directory, or none (default: {DEFAULT_POLICY})"
    )
    parser.add_argument("--device", default="auto", help="where the policy runs (default: %(default)s)")
    parser.add_argument(
        "--replan-period", type=float, default=0.4, help="of the policy node, in s (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="where recordings go (default: here)")
    parser.add_argument("--live", choices=LIVE, default="auto", help="listen to the running cell")
    parser.add_argument("--seconds", type=float, default=5.0, help="for how long to listen (default: %(default)s)")
    parser.add_argument("--namespace", default="", help="namespace of the cell")
    parser.add_argument("--domain", type=int, help="ROS domain (default: ROS_DOMAIN_ID, or 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the page")


def run(arguments: argparse.Namespace) -> int:
    """Print the page. Returns 1 when a check failed."""
    request = Request(
        urdf=arguments.urdf,
        policy=arguments.policy,
        device=arguments.device,
        replan_period_s=arguments.replan_period,
        folder=arguments.folder,
        live=arguments.live,
        seconds=arguments.seconds,
        namespace=arguments.namespace,
    )
    if arguments.domain is not None:
        use_domain(arguments.domain)
    robot = load_embodiment(arguments.robot)
    findings = list(examine(robot, request))
    level = worst(findings)
    if arguments.json:
        data = {"robot": robot.name, "level": level.name.lower(), "findings": [f.to_dict() for f in findings]}
        print(json.dumps(data))
    else:
        print(page(f"imagewam doctor: {robot.name}", findings))
    return int(level is Level.FAIL)


def examine(robot: Embodiment, request: Request) -> Iterator[Finding]:
    """Run every check, the quick and the still ones first."""
    yield from guarded("URDF", lambda: _description(robot, request.urdf))
    yield from check_stop(longest_stop_s(robot.limits, STOP_SHARE))
    yield from guarded("contract", lambda: _policy(robot, request))
    yield from guarded("machine", lambda: _machine(robot, request.folder))
    yield from guarded("live", lambda: _live(robot, request))


def _description(robot: Embodiment, path: Path | None) -> Iterator[Finding]:
    try:
        from imagewam_ros.kinematics.description import describe, expand
    except ImportError as error:
        yield skipped("URDF", str(error), "pip install xacro")
        return
    yield from check_description(robot, parse(expand(path) if path else describe(robot)))


def _policy(robot: Embodiment, request: Request) -> Iterator[Finding]:
    if request.policy == "none":
        yield skipped("contract", "no policy asked for")
        return
    try:
        directory = find_checkpoint(request.policy or DEFAULT_POLICY)
    except CheckpointError as error:
        if request.policy:
            raise
        yield skipped("contract", str(error), "name a checkpoint with --policy")
        return
    promise = read_promise(directory)
    yield from check_contract(promise, robot)
    if not request.inference:
        return
    try:
        promise.contract.check(robot)
    except EmbodimentMismatch:
        yield skipped("inference", "the policy does not fit this robot")
        return
    yield from guarded("inference", lambda: _inference(directory, robot, request))


def _inference(directory: Path, robot: Embodiment, request: Request) -> Iterator[Finding]:
    try:
        import torch

        from imagewam_ros.model.device import choose_device
        from imagewam_ros.policy import Policy
    except ImportError as error:
        yield skipped("inference", str(error), "install torch where the policy shall run")
        return
    device = choose_device(request.device)
    if device == "cpu":
        torch.set_num_threads(1)  # as policy_node does by default
        remedy = "a large backbone needs a GPU; the tiny one does not"
        yield warned("GPU", f"none used: torch {torch.__version__}, {torch.cuda.device_count()} CUDA devices", remedy)
    else:
        about = torch.cuda.get_device_properties(device)
        free = torch.cuda.mem_get_info(device)[0] / machine.GB
        yield passed(
            "GPU",
            f"{about.name}, {about.total_memory / machine.GB:.0f} GB, {free:.0f} GB free, torch {torch.__version__}",
        )
    policy = Policy.load(directory, robot, device)
    observation, times = dummy_observation(robot), []
    for seed in range(1 + LATER_CHUNKS):
        start = time.perf_counter()
        try:
            chunk = policy.infer(observation, seed)
        except LimitViolation as error:
            remedy = "poses from grey images may lie out of reach; on the robot this chunk would be refused"
            yield warned("inference", str(error), remedy)
            return
        times.append(time.perf_counter() - start)
    yield from check_speed(times[0], float(np.median(times[1:])), request.replan_period_s, device)
    yield from check_chunk(chunk, robot, observation.positions)


def _machine(robot: Embodiment, folder: Path) -> Iterator[Finding]:
    yield from machine.check_disk(folder.resolve(), robot)
    yield from machine.check_shared_memory(*machine.shared_memory(), cameras=len(robot.cameras))
    yield from machine.check_middleware(os.environ, robot, machine.receive_buffer())
    yield from machine.check_scheduling(machine.governors(), machine.real_time_priority())
    yield from machine.check_clock(machine.clock_state())


def _live(robot: Embodiment, request: Request) -> Iterator[Finding]:
    if request.live == "never":
        yield skipped("live", "not asked for")
        return
    missing = failed if request.live == "required" else skipped
    try:
        from imagewam_ros.nodes.doctor_probe import listen
    except ImportError as error:
        yield missing("live", f"ROS 2 cannot be imported ({error})", "see the installation page")
        return
    heard = listen(robot, request.seconds, request.namespace)
    if not heard.anything:
        remedy = "start the cell (imagewam up, or the robot's drivers); check namespace, ROS_DOMAIN_ID and discovery"
        yield missing("live", f"no graph of {robot.name} heard: neither joint_states nor cameras", remedy)
        return
    yield from check_streams(heard, robot)
    yield from check_pictures(heard, robot)
