# SPDX-License-Identifier: Apache-2.0
"""`imagewam bench graph`: from the shutter to the command, through the real nodes.

Cameras and joints come from a process of their own, policy and executor are the nodes of the cell.
Every figure of time is what these nodes report on /diagnostics; processor time is the kernel's.
The overhead is the time from the newest camera stamp to the published chunk without the model's.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.domain import private_domain, use_domain
from imagewam_ros.graph import Death, Parameter, Process, settings
from imagewam_ros.processor_time import busy_s
from imagewam_ros.supervisor import Interrupts, Supervisor

CAMERAS = ("head", "left_wrist", "right_wrist")
BEGIN, END = "load begins", "load ends"
"""Lines of the load that mark the measured stretch."""

CAMERA_STAGES = {
    "transport_s": "images on their way",
    "waiting_s": "waiting for partners, joints, the thread",
    "conversion_s": "messages to arrays",
    "handover_s": "to the inference thread",
    "preprocess_s": "arrays to the mosaic",
    "model_s": "model",
    "publish_s": "publishing the chunk",
}
COMMAND_STAGES = {
    "chunk_transport_s": "chunk published and on its way",
    "acceptance_s": "waiting for the tick, acceptance",
    "first_command_s": "curve, limits, first command",
}
TOTALS = {
    "overhead_s": "newest camera stamp to chunk, without the model",
    "camera_to_chunk_s": "camera stamp to chunk",
    "camera_to_command_s": "camera stamp to command",
}
"""Keys of /diagnostics, and what they are."""

MIN_CHUNKS = 3
PERCENTILES = ("p50", "p95", "p99", "max")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam bench graph`."""
    parser.add_argument("--seconds", type=float, default=10.0, help="how long cameras run (default: 10)")
    parser.add_argument("--model", choices=("stub", "tiny"), default="stub", help="stub takes --model-ms (default)")
    parser.add_argument("--model-ms", type=float, default=0.0, help="time that the stub sleeps per chunk (default: 0)")
    parser.add_argument("--replan-ms", type=float, help="between observations (default: one camera period)")
    parser.add_argument("--width", type=int, default=640, help="of each image (default: 640)")
    parser.add_argument("--height", type=int, default=480, help="of each image (default: 480)")
    parser.add_argument("--camera-hz", type=float, default=30.0, help="of each of three cameras (default: 30)")
    parser.add_argument("--joint-hz", type=float, default=200.0, help="of both arms' joint states (default: 200)")
    parser.add_argument(
        "--chunk-ms",
        type=float,
        help="compare instead: a model and a motion that take this long each, one after the other and at once",
    )
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Returns 0; figures judge nothing."""
    for name in ("seconds", "width", "height", "camera_hz", "joint_hz", "replan_ms", "chunk_ms"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name.replace('_', '-')} must be positive, found {value}; leave it away")
    if arguments.model != "stub" and (arguments.model_ms or arguments.chunk_ms):
        option = "--model-ms" if arguments.model_ms else "--chunk-ms"
        raise ConfigError(f"{option} is the stub's; leave it away with --model {arguments.model}")
    if arguments.chunk_ms is not None:
        result = compare(arguments)
        print(compare_table(result))
    else:
        result = measure(arguments, arguments.model_ms, arguments.replan_ms or 1e3 / arguments.camera_hz)
        print(table(result))
    if arguments.json:
        print(json.dumps(result))
    return 0


def measure(arguments: argparse.Namespace, model_ms: float, replan_ms: float) -> dict[str, Any]:
    """Run the graph once. Raises GraphError when a process fails."""
    folder = Path(tempfile.mkdtemp(prefix="imagewam_bench_"))
    try:
        with private_domain() as domain:
            use_domain(domain)
            os.environ["ROS_LOG_DIR"] = str(folder / "log")
            load, share, load_average = _run(_processes(arguments, folder, model_ms, replan_ms), folder)
    finally:
        shutil.rmtree(folder)
    return {
        "model": arguments.model,
        "model_ms": model_ms,
        "replan_ms": round(replan_ms, 3),
        "seconds": arguments.seconds,
        "cpu_cores": os.cpu_count(),
        "load_average": load_average,
        **_result(load),
        "cpu_share": share,
    }


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Chunks per second of a loop that infers, then executes, and of the graph that does both at once.

    The loop keeps its thread for both, so it is the graph with a model of twice the time.
    """
    rates = {}
    for name, model_ms in (("synchronous", 2 * arguments.chunk_ms), ("asynchronous", arguments.chunk_ms)):
        found = measure(arguments, model_ms, arguments.chunk_ms)
        rates[name] = round(found["chunk_rate_hz"], 3)
    return {
        "chunk_ms": arguments.chunk_ms,
        "seconds": arguments.seconds,
        "chunks_per_s": rates,
        "ratio": round(rates["asynchronous"] / rates["synchronous"], 3),
    }


def compare_table(result: Mapping[str, Any]) -> str:
    """Return the comparison for a person."""
    rates = result["chunks_per_s"]
    return (
        f"inference {result['chunk_ms']:g} ms and execution {result['chunk_ms']:g} ms: "
        f"one after the other {rates['synchronous']:.3f} chunks/s, at once {rates['asynchronous']:.3f} chunks/s, "
        f"ratio {result['ratio']:.3f}"
    )


def table(result: Mapping[str, Any]) -> str:
    """Return the figures for a person."""
    lines = [f"{'ms':<56}{''.join(f'{name:>9}' for name in PERCENTILES)}"]
    for heading, part in (("totals", TOTALS), ("to the chunk", CAMERA_STAGES), ("to the command", COMMAND_STAGES)):
        lines.append(f"{heading}:")
        for key, text in part.items():
            figures = result["ms"].get(key.removesuffix("_s"))
            if figures:
                lines.append(f"  {text:<54}{''.join(f'{figures[name]:>9.2f}' for name in PERCENTILES)}")
    share = ", ".join(f"{name} {part:.0%}" for name, part in result["cpu_share"].items())
    lines.append(f"of one core: {share} (load average {result['load_average']:.1f} on {result['cpu_cores']} cores)")
    lines.append(
        f"frames {result['frames']}, images dropped {result['images_dropped']} of {result['images']}; chunks "
        f"{result['chunks']}, dropped {result['chunks_dropped']}, refused {result['chunks_refused']}"
    )
    return "\n".join(lines)


def _processes(arguments: argparse.Namespace, folder: Path, model_ms: float, replan_ms: float) -> tuple[Process, ...]:
    robot = _robot(arguments, folder)
    policy: dict[str, Parameter] = {
        "robot": robot,
        "checkpoint": "tiny",
        "device": "cpu",
        "instruction": "lift the tray with both hands",
        "replan_period_s": replan_ms / 1e3,
        "sync.image_tolerance_s": 0.48 / arguments.camera_hz,  # below half a period
    }
    if arguments.model == "stub":
        policy["model_s"] = model_ms / 1e3
    load: dict[str, Parameter] = {
        "robot": robot,
        "seconds": arguments.seconds,
        "joint_hz": arguments.joint_hz,
        "out": str(folder / "load.json"),
    }
    node = "stub_policy_node" if arguments.model == "stub" else "policy_node"
    return (
        Process("load", "graph_load_node", Death.FAILURE_ENDS_GRAPH, load, publishes_images=True),
        Process("policy", node, Death.ENDS_GRAPH, policy),
        Process("executor", "executor_node", Death.ENDS_GRAPH, {"robot": robot, "guarded": False}),
        Process("bringup", "bringup_node", Death.FAILURE_ENDS_GRAPH, {"nodes": ("policy", "executor")}),
    )


def _robot(arguments: argparse.Namespace, folder: Path) -> str:
    """Write the simulated cell with other cameras, and return the path."""
    robot = yaml.safe_load((share_dir() / "config" / "robots" / "sim_cell.yaml").read_text(encoding="utf8"))
    for camera in robot["cameras"]:
        camera |= {"width": arguments.width, "height": arguments.height, "rate_hz": arguments.camera_hz}
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(robot), encoding="utf8")
    return str(path)


def _run(processes: tuple[Process, ...], folder: Path) -> tuple[dict[str, Any], dict[str, float], float]:
    """What the load wrote, the share of one core of each process, and the machine's load meanwhile."""
    lines: list[tuple[str, str]] = []
    moments: list[tuple[float, dict[str, float]]] = []
    with (
        Interrupts() as interrupts,
        Supervisor(processes, settings({}), lambda *line: lines.append(line)) as graph,
    ):
        while not interrupts.received:
            seen = len(lines)
            ended = graph.poll()
            if any(line in (("load", BEGIN), ("load", END)) for line in lines[seen:]):
                moments.append((time.monotonic(), {name: busy_s(pid) for name, pid in graph.alive.items()}))
            if ended:
                break
        load_average = os.getloadavg()[0]
    if interrupts.received:
        raise KeyboardInterrupt
    if len(moments) != 2 or not (folder / "load.json").exists():
        raise GraphError("the measurement did not finish:\n" + "\n".join(": ".join(line) for line in lines[-12:]))
    (began_s, before), (ended_s, after) = moments
    share = {name: round((after[name] - before[name]) / (ended_s - began_s), 3) for name in before}
    return json.loads((folder / "load.json").read_text(encoding="utf8")), share, load_average


def _result(load: Mapping[str, Any]) -> dict[str, Any]:
    policy, executor = load["said"]["policy"], load["said"]["executor"]
    said = {**policy, **executor}
    frames = load["published"]["frames"]
    received = sum(int(policy.get(f"{name}_total", 0)) for name in CAMERAS)
    chunks, accepted = int(policy.get("chunk_total", 0)), int(executor.get("accepted_total", 0))
    refused = int(executor.get("refused_total", 0))
    ms = {key.removesuffix("_s"): _ms(said[key]) for key in (*TOTALS, *CAMERA_STAGES, *COMMAND_STAGES) if key in said}
    return {"ms": ms, "frames": frames, "images": 3 * frames, "images_dropped": 3 * frames - received} | {
        "chunks": chunks,
        "chunks_dropped": chunks - accepted - refused,
        "chunks_refused": refused,
        "chunk_rate_hz": _rate_hz(load["ready_ns"]),
    }


def _rate_hz(ready_ns: Sequence[int]) -> float:
    """Chunks per second between the first and the last."""
    if len(ready_ns) < MIN_CHUNKS:
        raise GraphError(f"{len(ready_ns)} chunks came, {MIN_CHUNKS} at least make a rate; give more --seconds")
    return (len(ready_ns) - 1) / (ready_ns[-1] - ready_ns[0]) * 1e9


def _ms(text: str) -> dict[str, float]:
    """Read percentiles as a node reports them, in s."""
    words = text.split()
    return {name: round(float(value) * 1e3, 3) for name, value in zip(words[::2], words[1::2], strict=True)}
