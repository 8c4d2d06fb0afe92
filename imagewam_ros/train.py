# SPDX-License-Identifier: Apache-2.0
"""`imagewam train`: episodes to a checkpoint directory, in one run folder that can be resumed.

One process, or several started by `accelerate launch -m imagewam_ros train ...` or `torchrun`.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.training.pixels import ReadConfig
from imagewam_ros.training.presets import PRESETS, Preset, TrainConfig, find_preset
from imagewam_ros.training.run import train
from imagewam_ros.training.team import join


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam train`."""
    parser.add_argument("--preset", default="tiny", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of episodes")
    parser.add_argument("--policy-runs", action="store_true", help="also learn from successes of a policy alone")
    parser.add_argument("--trim-idle", action="store_true", help="leave out what comes before the first motion")
    parser.add_argument("--workers", type=int, default=2, help="processes that read episodes side by side")
    parser.add_argument("--out", type=Path, required=True, help="run folder; what it holds already is not done again")
    parser.add_argument("--base", help="checkpoint to go on from: a name in models/ or a directory")
    parser.add_argument(
        "--begin-with",
        help="checkpoint of the preset's sizes whose weights come first; words and statistics are learned anew",
    )
    parser.add_argument("--robot", default="sim_cell", help="robot name or path to its YAML")
    parser.add_argument("--steps", type=int, help="of the network, instead of the preset's")
    parser.add_argument("--autoencoder-steps", type=int, help="of the autoencoder, instead of the preset's")
    parser.add_argument("--batch", type=int, help="samples per step, instead of the preset's")
    parser.add_argument(
        "--accumulate", type=int, help="parts of a batch, one after another: less memory for the same step"
    )
    parser.add_argument("--learning-rate", type=float, help="highest one of the network, instead of the preset's")
    parser.add_argument(
        "--lora-rank", type=int, help="train adapters of this rank, merged at the end; 0 trains all weights"
    )
    parser.add_argument("--hold-back", nargs="+", metavar="INSTRUCTION", help="learn these later than the others")
    parser.add_argument("--hold-back-steps", type=int, help="steps of the network without them")
    parser.add_argument("--seed", type=int, default=0, help="the same seed and data give the same weights")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; their number changes the last bits")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU that is there")
    parser.add_argument("--tensorboard", action="store_true", help="also write the curves for TensorBoard")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Train what is missing in the run folder, then write its checkpoint."""
    torch.set_num_threads(arguments.threads)
    preset = changed(find_preset(arguments.preset), arguments)
    robot, team = load_embodiment(arguments.robot), join(arguments.cpu)
    base = find_checkpoint(arguments.base) if arguments.base else None
    read = ReadConfig(arguments.trim_idle, arguments.policy_runs, workers=arguments.workers)
    report = train(
        preset, arguments.data, arguments.out, robot, arguments.seed, team, base, arguments.tensorboard, read
    )
    if team.leads:
        print("\n".join(f"{name}: {value}" for name, value in report.items()))
        if arguments.json:
            print(json.dumps(report))
    return 0


def changed(preset: Preset, arguments: argparse.Namespace) -> Preset:
    """Return the preset with the numbers that the command line names."""
    training: dict[str, Any] = {
        "steps": arguments.steps,
        "batch": arguments.batch,
        "targets": _targets(preset.training, arguments.batch),
        "accumulate": arguments.accumulate,
        "learning_rate": arguments.learning_rate,
        "lora_rank": arguments.lora_rank,
        "held_back": tuple(arguments.hold_back) if arguments.hold_back else None,
        "hold_back_steps": arguments.hold_back_steps,
    }
    autoencoder = {"steps": arguments.autoencoder_steps}
    return dataclasses.replace(
        preset,
        training=dataclasses.replace(preset.training, **_given(training)),
        begin_with=arguments.begin_with or preset.begin_with,
        autoencoder=dataclasses.replace(preset.autoencoder, **_given(autoencoder)),
    )


def _targets(training: TrainConfig, batch: int | None) -> int | None:
    """How many samples of another batch have a target: the same share, at least one where there were some."""
    if batch is None or not training.targets:
        return None
    return max(1, round(batch * training.targets / training.batch))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
