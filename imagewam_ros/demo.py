# SPDX-License-Identifier: Apache-2.0
"""`imagewam demo`: the whole cell as separate processes, a few episodes, and what came of them.

Exit codes: 0 every episode succeeded within the limits, 1 one did not, 2 not possible here,
3 a process of the graph died, 130 Ctrl-C.
"""

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TextIO

from imagewam_ros.cli import INTERRUPTED
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.domain import private_domain, use_domain
from imagewam_ros.graph import Death, Process, Ref, Value, running, settings
from imagewam_ros.supervisor import Exit, Interrupts, Supervisor

DIED = 3
FRONT_HZ = 10.0
TAIL = 12
"""Lines of a dead process that are shown."""

PASSED_ON = ("robot", "policy", "device", "task", "seed", "speed", "log_level")
"""Arguments of the graph that the demo takes too; it owns the others."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the demo lets you choose."""
    from imagewam_ros.graph import ARGUMENTS

    parser.add_argument("--episodes", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--episode-s", type=float, default=20.0, help="simulated time of one at most (default: 20)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for video, plots, logs (default: demo)")
    parser.add_argument("--domain", type=int, help="ROS domain (default: a private one)")
    parser.add_argument("--json", action="store_true", help="print one machine-readable line last")
    for argument in (a for a in ARGUMENTS if a.name in PASSED_ON):
        text = f"{argument.description} (default: {argument.default})"
        parser.add_argument(f"--{argument.name.replace('_', '-')}", choices=argument.choices or None, help=text)


def run(arguments: argparse.Namespace) -> int:
    """Play the episodes and report. Returns the exit code."""
    if arguments.episodes < 1 or arguments.episode_s <= 0:
        raise ConfigError("--episodes and --episode-s must be positive; try --episodes 5 --episode-s 20")
    chosen = {name: getattr(arguments, name) for name in PASSED_ON if getattr(arguments, name) is not None}
    values = settings(chosen)
    values["use_sim_time"] = values["speed"] != 1.0
    out: Path = arguments.out.resolve()
    (out / "log").mkdir(parents=True, exist_ok=True)
    for old in out.glob("episode_*.npz"):
        old.unlink()
    with private_domain() if arguments.domain is None else nullcontext(arguments.domain) as domain:
        use_domain(domain)
        os.environ["ROS_LOG_DIR"] = str(out / "log" / "ros")
        print(
            f"imagewam demo: {arguments.episodes} episodes in ROS domain {domain}; everything goes to {out}", flush=True
        )
        code = play(processes(values, arguments.episodes, arguments.episode_s, out), values, out / "log")
    return code if code else report(out, str(values["robot"]), machine_line=arguments.json)


def processes(values: Mapping[str, Value], episodes: int, episode_s: float, out: Path) -> tuple[Process, ...]:
    """Return the graph with a front camera and the demo's own node; any death ends everything."""
    extra = {"sim": {"front_rate_hz": FRONT_HZ}}
    graph = tuple(
        replace(
            process,
            death=Death.ENDS_GRAPH if process.death is Death.ARMS_HOLD else process.death,
            parameters={**process.parameters, **extra.get(process.name, {})},
        )
        for process in running(values)
    )
    mine: dict[str, Value | tuple[str, ...] | Ref] = {
        "robot": Ref("robot"),
        "episodes": episodes,
        "seed": Ref("seed"),
        "episode_s": episode_s,
        "video_hz": FRONT_HZ,
        "out": str(out),
    }
    return (*graph, Process("demo", "demo_node", Death.FAILURE_ENDS_GRAPH, mine))


def play(graph: tuple[Process, ...], values: Mapping[str, Value], logs: Path) -> int:
    """Run the graph until the demo node is done. Returns 0, or the exit code of what went wrong."""
    with Logs(logs) as sink, Interrupts() as interrupts, Supervisor(graph, values, sink) as supervisor:
        while not interrupts.received:
            for ended in supervisor.poll():
                if ended.ends_graph:
                    sink.explain(ended)
                    return DIED
                if ended.process.name == "demo":
                    return 0
    print(f"imagewam demo: stopped by {interrupts.received.name}; nothing is left running", file=sys.stderr)
    return INTERRUPTED


def report(out: Path, robot: str, *, machine_line: bool) -> int:
    """Judge the recorded episodes, print the table, write plots and demo.json. Returns the exit code."""
    from imagewam_ros.control.checker import check
    from imagewam_ros.core.embodiment import load_embodiment
    from imagewam_ros.demo_pictures import plot
    from imagewam_ros.demo_record import EpisodeRecord, Figures, table, totals

    limits = load_embodiment(robot).limits
    records = [EpisodeRecord.load(path) for path in sorted(out.glob("episode_*.npz"), key=_number)]
    figures = [Figures.of(record, len(check(record.commands(), limits))) for record in records]
    print(table(figures))
    plot(records[0], out / "joints.png")
    summary = totals(figures)
    with (out / "demo.json").open("w") as file:
        json.dump({**summary, "rows": [asdict(figure) for figure in figures]}, file, indent=1)
    print(f"wrote {', '.join(str(out / name) for name in ('demo.mp4', 'joints.png', 'demo.json'))}")
    if machine_line:
        print(json.dumps(summary))
    return int(summary["successes"] != summary["episodes"] or bool(summary["limit_violations"]))


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


class Logs:
    """Takes what the processes say: the demo's own words to the screen, the others' into files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, TextIO] = {}
        self._last: dict[str, deque[str]] = {}

    def __enter__(self) -> "Logs":
        """Open nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    def __call__(self, name: str, line: str) -> None:
        """Keep one line."""
        if name == "demo":
            print(line, flush=True)
        if name not in self._files:
            self._files[name] = (self._folder / f"{name}.log").open("w", buffering=1)
            self._last[name] = deque(maxlen=TAIL)
        self._files[name].write(line + "\n")
        self._last[name].append(line)

    def explain(self, ended: Exit) -> None:
        """Say which process ended everything, with its last words and every other node's complaint."""
        name = ended.process.name
        print(f"imagewam demo: {ended}; its last lines, all in {self._folder / name}.log:", file=sys.stderr)
        complaints = [f"[{other}] {line}" for other, lines in self._last.items() for line in lines if "[ERROR]" in line]
        own = [f"[{name}] {line}" for line in self._last.get(name, ())] if name != "demo" else []
        for line in dict.fromkeys((*complaints, *own)):
            print(f"  {line}", file=sys.stderr)
