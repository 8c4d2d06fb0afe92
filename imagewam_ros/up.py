# SPDX-License-Identifier: Apache-2.0
"""`imagewam up`: run the graph of a cell until Ctrl-C."""

import argparse
import sys
from collections.abc import Mapping, Sequence

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.domain import use_domain
from imagewam_ros.graph import ARGUMENTS, Process, Value, running, settings
from imagewam_ros.packages import needed_packages, require_launch, require_packages
from imagewam_ros.supervisor import Interrupts, Supervisor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the graph's arguments, and the ROS domain."""
    for argument in ARGUMENTS:
        text = f"{argument.description} (default: {str(argument.default).lower() or 'none'})"
        choices = argument.choices or (("true", "false") if isinstance(argument.default, bool) else None)
        parser.add_argument(f"--{argument.name.replace('_', '-')}", choices=choices, help=text)
    parser.add_argument("--domain", type=int, help="ROS domain (default: ROS_DOMAIN_ID, or 0)")
    parser.add_argument("assignments", nargs="*", metavar="name:=value", help="the same, as ros2 launch takes it")


def run(arguments: argparse.Namespace) -> int:
    """Run the graph until Ctrl-C or until a process that it needs ends. Returns the exit code."""
    values = settings(chosen(arguments))
    require_launch(values)
    require_packages(needed_packages(values))
    if arguments.domain is not None:
        use_domain(arguments.domain)
    return supervise(running(values), values)


def supervise(processes: Sequence[Process], values: Mapping[str, Value]) -> int:
    """Run processes until Ctrl-C or until one that the others need ends.

    Returns 0 after Ctrl-C, 1 when a process had died by then or had to be killed.
    """
    died = False
    with Interrupts() as interrupts, Supervisor(processes, values, print_line) as supervisor:
        print(f"imagewam: started {', '.join(supervisor.alive)}; Ctrl-C ends all", flush=True)
        while supervisor.alive and not interrupts.received:
            for ended in supervisor.poll():
                if ended.as_planned:
                    continue
                died = True
                print(f"imagewam: {ended}", file=sys.stderr, flush=True)
                if ended.ends_graph:
                    return 1
    if supervisor.killed:
        print(f"imagewam: did not end by themselves: {', '.join(supervisor.killed)}", file=sys.stderr)
    return int(died or bool(supervisor.killed))


def chosen(arguments: argparse.Namespace) -> dict[str, str]:
    """Collect what was given as --name or as name:=value. Raises ConfigError."""
    given = {a.name: getattr(arguments, a.name) for a in ARGUMENTS if getattr(arguments, a.name, None) is not None}
    for text in getattr(arguments, "assignments", ()):
        name, separator, value = text.partition(":=")
        if not separator:
            raise ConfigError(f"expected name:=value, found {text!r}; try `imagewam up --help`")
        given[name] = value
    return given


def print_line(name: str, line: str) -> None:
    """Show one line with the process it came from."""
    print(f"[{name}] {line}", flush=True)
