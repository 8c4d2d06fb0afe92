# SPDX-License-Identifier: Apache-2.0
"""The `imagewam` command: one table of commands, each in a module that is imported when it runs.

A command's module has `add_arguments(parser)` and `run(arguments) -> int`, the exit code. Exit codes
of every command: 0 done, 1 done with a bad result, 2 asked for wrongly or not possible here, 130 Ctrl-C.
"""

import argparse
import importlib
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple, NoReturn

from imagewam_ros.core.errors import ImageWamError


class Command(NamedTuple):
    """Where a command lives, what it does in one line, and one way to call it."""

    module: str
    summary: str
    example: str


COMMANDS = {
    "demo": Command(
        "imagewam_ros.demo",
        "run the trained tiny policy in the simulated cell and show how it did",
        "imagewam demo --episodes 5 --seed 0 --out demo",
    ),
    "up": Command(
        "imagewam_ros.up",
        "start the graph of a cell: simulator or robot, policy, executor",
        "imagewam up --policy models/tiny --sim mujoco",
    ),
    "record": Command(
        "imagewam_ros.record",
        "record demonstrations, by the scripted expert or from the running graph; recover, label",
        "imagewam record --expert --episodes 700 --out data/demonstrations",
    ),
    "convert": Command(
        "imagewam_ros.convert",
        "turn recorded episodes into a LeRobot data set, or such a set into episodes",
        "imagewam convert episodes dataset --version v3.0",
    ),
    "train": Command(
        "imagewam_ros.train",
        "train a policy on demonstrations",
        "imagewam train --preset tiny --data data/demonstrations --out runs/tiny",
    ),
    "evaluate": Command(
        "imagewam_ros.evaluate",
        "count a policy's successes in the simulator, with images and without",
        "imagewam evaluate --episodes 50 --seed 1000 --json",
    ),
    "dagger": Command(
        "imagewam_ros.dagger",
        "let the expert correct a policy's runs, train on the corrections and compare",
        "imagewam dagger --policy runs/tiny/checkpoint --data data/tray --out runs/dagger_1",
    ),
    "serve": Command(
        "imagewam_ros.serve",
        "serve a policy to clients of openpi's websocket protocol",
        "imagewam serve --policy tiny --port 8000",
    ),
    "bench": Command(
        "imagewam_ros.bench",
        "measure a part on this machine",
        "imagewam bench recorder --seconds 10 --json",
    ),
    "replay": Command(
        "imagewam_ros.replay",
        "play a recorded run again, find the first divergence, recommend how to merge its chunks",
        "imagewam replay episodes/episode_0 --json",
    ),
    "doctor": Command(
        "imagewam_ros.doctor",
        "look a cell over before it moves: names, limits, streams, clocks, machine",
        "imagewam doctor --robot sim_cell --policy tiny",
    ),
    "attention": Command(
        "imagewam_ros.attention",
        "show what the action tokens attend to: cameras, the task's objects, layers and heads",
        "imagewam attention --policy tiny --episodes 20 --figure attention.png --json",
    ),
    "preview": Command(
        "imagewam_ros.preview",
        "show the goal images that a policy imagines beside what came",
        "imagewam preview --policy tiny --episodes 5 --out preview.png",
    ),
    "import": Command(
        "imagewam_ros.importer",
        "turn an official ImageWAM checkpoint, or an image editor to train from, into a checkpoint directory",
        "imagewam import weights/robotwin runs/two --robot piper --gripper 0 1 --period-ms 50 --first-row-offset 1",
    ),
    "parity": Command(
        "imagewam_ros.model.parity",
        "compare this installation's network with reference data",
        "imagewam parity test/data/flux2_tiny",
    ),
}

INTERRUPTED = 128 + signal.SIGINT


class Parser(argparse.ArgumentParser):
    """An argument parser that answers unknown names with the nearest one."""

    def error(self, message: str) -> NoReturn:
        """Print usage and the message with a hint, then exit with 2."""
        super().error(message + self._hint(message))

    def _hint(self, message: str) -> str:
        unknown = re.search(r"(?:unrecognized arguments:|invalid choice:) '?([\w-]+)", message)
        if not unknown:
            return ""
        word = unknown.group(1)
        nearest = get_close_matches(word, self.names(options=word.startswith("-")), n=1)
        return f"; did you mean {nearest[0]}?" if nearest else ""

    def names(self, options: bool) -> Iterable[str]:
        """Names this parser knows: its options, or its commands and choices."""
        for action in self._actions:
            yield from action.option_strings if options else map(str, action.choices or ())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code; a user's mistake is one line on standard error and 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        chosen = parse(words)
        return int(chosen.run(chosen))
    except ImageWamError as error:
        print(f"imagewam: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("imagewam: interrupted", file=sys.stderr)
        return INTERRUPTED


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line and import only the module of the command in it."""
    name = next((word for word in words if not word.startswith("-")), "")
    if name not in COMMANDS:
        top = Parser(prog="imagewam", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=overview())
        top.description = "Run ImageWAM on a dual-arm robot, in simulation or for real."
        top.add_argument("command", choices=COMMANDS, metavar="command", help="one of those below")
        top.parse_args(words)
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    parser = Parser(
        prog=f"imagewam {name}",
        description=f"{command.summary.capitalize()}.",
        epilog=f"example:\n  {command.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    rest = list(words)
    rest.remove(name)
    chosen = parser.parse_args(rest)
    chosen.run = module.run
    return chosen


def overview() -> str:
    """One line per command for the top-level help."""
    lines = [f"  {name:<10}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["commands:", *lines, "", "imagewam COMMAND --help explains one, with an example."])
