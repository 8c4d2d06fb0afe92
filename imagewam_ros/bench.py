# SPDX-License-Identifier: Apache-2.0
"""`imagewam bench WHAT`: one measurement each, in a module with `add_arguments(parser)` and `run(arguments)`."""

import argparse
import importlib

BENCHES = {
    "cost": ("imagewam_ros.bench_cost", "count FLOPs, bytes and kernel calls of a chunk at real sizes"),
    "step": ("imagewam_ros.bench_step", "time one policy step beside the authors' schedule on the same weights"),
    "graph": ("imagewam_ros.bench_graph", "time the way from the shutter to the command through the real nodes"),
    "executor": ("imagewam_ros.bench_executor", "abuse a robot's executor at random and judge its log"),
    "recorder": ("imagewam_ros.bench_recorder", "publish a cell's cameras and joints and count what is recorded"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command for each measurement."""
    choices = parser.add_subparsers(dest="what", metavar="what", required=True)
    for name, (module, summary) in BENCHES.items():
        importlib.import_module(module).add_arguments(choices.add_parser(name, help=summary, description=summary))


def run(arguments: argparse.Namespace) -> int:
    """Measure. Returns the exit code of the measurement."""
    return int(importlib.import_module(BENCHES[arguments.what][0]).run(arguments))
