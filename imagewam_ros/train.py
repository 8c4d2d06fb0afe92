# SPDX-License-Identifier: Apache-2.0
"""`imagewam train`: episodes to a checkpoint directory, in one run folder that can be resumed.

pixels.npy demonstrations.npz   what was read from the episodes
autoencoder/                    trained image autoencoder
latents.npy                     every frame, encoded once
state.safetensors log.csv       progress of the network
checkpoint/                     what a robot loads
report.json                     figures of the run
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.data.dataset import Dataset
from imagewam_ros.model.autoencoder import Flux2Codec
from imagewam_ros.model.checkpoint import save_checkpoint
from imagewam_ros.model.factory import build_network
from imagewam_ros.model.text import QwenText, small_text
from imagewam_ros.model.wam import ImageWam
from imagewam_ros.training.autoencoder import encode_all, quality, train_autoencoder
from imagewam_ros.training.metric import chunk_error
from imagewam_ros.training.network import Progress, initialise, resume, start, train_network
from imagewam_ros.training.pixels import Footage, check_episodes, read_footage, successful_episodes
from imagewam_ros.training.presets import PRESETS, Preset, contract_of, find_preset
from imagewam_ros.training.samples import Samples

QUALITY_FRAMES = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam train`."""
    parser.add_argument("--preset", default="tiny", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of episodes")
    parser.add_argument("--out", type=Path, required=True, help="run folder; what it holds already is not done again")
    parser.add_argument("--robot", default="sim_cell", help="robot name or path to its YAML")
    parser.add_argument("--steps", type=int, help="of the network, instead of the preset's")
    parser.add_argument("--autoencoder-steps", type=int, help="of the autoencoder, instead of the preset's")
    parser.add_argument("--seed", type=int, default=0, help="the same seed and data give the same weights")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; their number changes the last bits")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Train what is missing in the run folder, then write its checkpoint."""
    torch.set_num_threads(arguments.threads)
    preset = _changed(find_preset(arguments.preset), arguments)
    report = train(preset, arguments.data, arguments.out, arguments.robot, arguments.seed)
    print("\n".join(f"{name}: {value}" for name, value in report.items()))
    if arguments.json:
        print(json.dumps(report))
    return 0


def train(preset: Preset, data: Sequence[Path], out: Path, robot_name: str, seed: int) -> dict[str, Any]:
    """Run all stages and return the figures of the run."""
    clock = _Clock()
    robot, episodes = load_embodiment(robot_name), successful_episodes(data)
    contract = contract_of(preset, robot, next(iter(episodes.values())))
    check_episodes(episodes, contract)
    out.mkdir(parents=True, exist_ok=True)
    footage = read_footage(list(episodes), contract.mosaic, out)
    clock.lap("reading")
    dataset = Dataset(footage.demonstrations, contract.horizon, contract.relative)
    learned, held = split(len(footage.demonstrations), preset.training.held_out)
    rows, held_rows = dataset.of(learned), dataset.of(held)
    codec = _autoencoder(preset, footage, rows, seed, out)
    clock.lap("autoencoder")
    latents = np.load(out / "latents.npy") if (out / "latents.npy").exists() else None
    if latents is None:
        latents = encode_all(codec, footage.mosaics, out / "latents.npy")
    clock.lap("encoding")
    state, action = dataset.statistics(rows)
    text = _text(preset, contract, footage)
    model = ImageWam(build_network(preset.spec), codec, text, preset.spec, contract.prompt, contract.horizon)
    instructions = {one: model.encode_instruction(one) for one in {d.instruction for d in footage.demonstrations}}
    samples = Samples(dataset, latents, contract, {"state": state, "action": action}, instructions)
    progress = _progress(model, preset, seed, out)

    def watch(reached: Progress) -> str:
        error = chunk_error(reached.average, samples, held_rows)
        return f"held-out chunk error {error.all:.3f}, early {error.early:.3f}"

    train_network(progress, samples, rows, preset.training, seed, out, watch)
    clock.lap("network")
    error = chunk_error(progress.average, samples, held_rows)
    model.network.load_state_dict(progress.average.state_dict())
    report = {
        "preset": preset.spec.variant,
        "episodes": len(footage.demonstrations),
        "held_out_episodes": len(held),
        "frames": len(dataset),
        "parameters": sum(weight.numel() for weight in model.network.parameters()),
        "autoencoder_parameters": sum(weight.numel() for weight in codec.autoencoder.parameters()),
        "psnr_db": round(
            quality(codec, footage.mosaics[held_rows[:: len(held_rows) // QUALITY_FRAMES + 1]]).psnr_db, 2
        ),
        "steps": progress.step,
        "chunk_error": round(error.all, 4),
        "chunk_error_early": round(error.early, 4),
        "seed": seed,
        "threads": torch.get_num_threads(),
        **clock.figures(),
    }
    _write(out, model, contract, samples, report)
    return report


def split(count: int, held_out: float) -> tuple[list[int], list[int]]:
    """Places of the demonstrations to learn from and of those held out, the last ones; at least one each."""
    held = min(max(1, round(count * held_out)), count - 1) if count > 1 else 0
    learned = list(range(count - held))
    return learned, list(range(count - held, count)) or learned


def _autoencoder(preset: Preset, footage: Footage, rows: Any, seed: int, out: Path) -> Flux2Codec:
    if (out / "autoencoder" / "config.json").exists():
        return Flux2Codec.load(out / "autoencoder")
    codec = train_autoencoder(preset.autoencoder, footage.mosaics, rows, seed)
    codec.save(out / "autoencoder")
    return Flux2Codec.load(out / "autoencoder")


def _text(preset: Preset, contract: Contract, footage: Footage) -> QwenText:
    """Small text encoder fitted to the prompts of these demonstrations."""
    prompts = sorted({contract.prompt.format(task=d.instruction) for d in footage.demonstrations})
    width = preset.spec.network.text_dim // len(preset.spec.text.layers)
    return small_text(prompts, preset.spec.text, width, max_length=contract.text_length)


def _progress(model: ImageWam, preset: Preset, seed: int, out: Path) -> Progress:
    initialise(model.network, seed)
    progress = start(model.network, preset.training)
    if (out / "state.safetensors").exists():
        resume(progress, out / "state.safetensors")
    return progress


def _write(out: Path, model: ImageWam, contract: Contract, samples: Samples, report: dict[str, Any]) -> None:
    """Write the checkpoint in float16; a new one replaces the last."""
    config = out / "checkpoint" / "config.json"
    config.unlink(missing_ok=True)
    save_checkpoint(out / "checkpoint", model, contract, samples.statistics, torch.float16)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf8")


def _changed(preset: Preset, arguments: argparse.Namespace) -> Preset:
    if arguments.steps:
        preset = dataclasses.replace(preset, training=dataclasses.replace(preset.training, steps=arguments.steps))
    if arguments.autoencoder_steps:
        changed = dataclasses.replace(preset.autoencoder, steps=arguments.autoencoder_steps)
        preset = dataclasses.replace(preset, autoencoder=changed)
    return preset


class _Clock:
    """Wall and CPU seconds of the stages."""

    def __init__(self) -> None:
        self._last = (time.perf_counter(), time.process_time())
        self._laps: dict[str, tuple[float, float]] = {}

    def lap(self, name: str) -> None:
        """End a stage."""
        now = (time.perf_counter(), time.process_time())
        self._laps[name] = (now[0] - self._last[0], now[1] - self._last[1])
        self._last = now

    def figures(self) -> dict[str, Any]:
        """Seconds per stage, wall and CPU, and the machine's cores."""
        figures: dict[str, Any] = {"cores": os.cpu_count()}
        for name, (wall, cpu) in self._laps.items():
            figures |= {f"{name}_s": round(wall), f"{name}_cpu_s": round(cpu)}
        return figures
