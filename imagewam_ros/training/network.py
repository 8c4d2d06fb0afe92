# SPDX-License-Identifier: Apache-2.0
"""The training loop: joint flow matching, running mean of the weights, resumable to the bit on a CPU.

Batches depend on (seed, step) alone, so a resumed run sees what an uninterrupted one would have.
"""

import copy
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import trange

from imagewam_ros.core.errors import CheckpointError, ImageWamError
from imagewam_ros.data.dataset import Rows
from imagewam_ros.model import flow
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.training.presets import TrainConfig
from imagewam_ros.training.rates import cosine
from imagewam_ros.training.samples import Samples

LOG_EVERY = 50
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Progress:
    """What a run has reached: network, running mean of its weights, optimiser, steps done."""

    network: ImageWamNetwork
    average: ImageWamNetwork
    optimizer: torch.optim.AdamW
    step: int = 0


class LogRow(NamedTuple):
    """One line of log.csv: means since the line before."""

    step: int
    action: float
    video: float
    learning_rate: float
    seconds: float
    cpu_seconds: float


def start(network: ImageWamNetwork, config: TrainConfig) -> Progress:
    """Begin with `network` as it is."""
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    return Progress(network.train(), copy.deepcopy(network).eval().requires_grad_(False), optimizer)


def train_network(
    progress: Progress,
    samples: Samples,
    rows: Rows,
    config: TrainConfig,
    seed: int,
    store: Path,
    watch: Callable[[Progress], str] | None = None,
) -> None:
    """Train to the end of `config`, saving to `store` on the way; `watch` may add a word to the log.

    Raises ImageWamError when the loss is no number any more.
    """
    begin, cpu = time.perf_counter(), time.process_time()
    sums = torch.zeros(2)
    bar = trange(progress.step, config.steps, unit="step", desc="network", initial=progress.step, total=config.steps)
    for step in bar:
        loss = train_step(progress, samples, rows, config, seed)
        sums += torch.tensor([loss.action.item(), loss.video.item()])
        if not math.isfinite(loss.total.item()):
            raise ImageWamError(
                f"loss is {loss.total.item()} at step {step}; lower the learning rate or resume from {store}"
            )
        if progress.step % LOG_EVERY == 0:
            rate = progress.optimizer.param_groups[0]["lr"]
            row = LogRow(
                progress.step,
                *(sums / LOG_EVERY).tolist(),
                rate,
                time.perf_counter() - begin,
                time.process_time() - cpu,
            )
            _append(store / "log.csv", row)
            bar.set_postfix_str(f"action {row.action:.3f} image {row.video:.3f}")
            sums.zero_()
        if progress.step % config.save_every == 0 or progress.step == config.steps:
            save(progress, store / "state.safetensors")
            if watch is not None:
                bar.write(f"step {progress.step}: {watch(progress)}")


def train_step(progress: Progress, samples: Samples, rows: Rows, config: TrainConfig, seed: int) -> flow.Losses:
    """Do one step and return its losses."""
    step = progress.step
    for group in progress.optimizer.param_groups:
        group["lr"] = config.learning_rate * cosine(step, config.steps, config.warmup, config.floor)
    batch = samples.draw(rows, config, seed, step)
    loss = flow.losses(progress.network.joint_forward(batch), batch, samples.contract.denoising.shift)
    progress.optimizer.zero_grad()
    loss.total.backward()
    nn.utils.clip_grad_norm_(progress.network.parameters(), config.clip)
    progress.optimizer.step()
    progress.step += 1
    past = min(config.average, (1 + progress.step) / (10 + progress.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(progress.average.parameters()), list(progress.network.parameters()), 1 - past)
    return loss


def initialise(network: ImageWamNetwork, seed: int) -> None:
    """Give a network random weights: heads at zero, so that it starts by predicting none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        for name, weight in network.named_parameters():
            if name.endswith(("time_in.in_layer.weight", "time_in.out_layer.weight")):
                nn.init.normal_(weight, std=0.1 if "in_layer" in name else 0.2)
            elif "_modulation" in name and name.endswith("lin.weight"):
                nn.init.normal_(weight, std=0.02)
            elif name in ("video.final_layer.linear.weight", "action.head.linear.weight"):
                nn.init.zeros_(weight)


def save(progress: Progress, path: Path) -> None:
    """Write weights, mean and moments; the file is whole or not there."""
    named = dict(progress.network.named_parameters())
    state = progress.optimizer.state
    tensors: dict[str, Tensor] = {"step": torch.tensor(progress.step)}
    for name, weight in named.items():
        tensors[f"network.{name}"] = weight.detach()
        for moment in MOMENTS:
            tensors[f"{moment}.{name}"] = state[weight][moment]
    for name, weight in progress.average.named_parameters():
        tensors[f"average.{name}"] = weight
    part = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
    part.replace(path)


def resume(progress: Progress, path: Path) -> None:
    """Continue from what `save` wrote. Raises CheckpointError when it belongs to another network."""
    tensors = load_file(path)
    named = dict(progress.network.named_parameters())
    missing = [name for name in named if f"network.{name}" not in tensors]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}; it belongs to another preset")
    progress.step = int(tensors["step"])
    mean = dict(progress.average.named_parameters())
    with torch.no_grad():
        for name, weight in named.items():
            weight.copy_(tensors[f"network.{name}"])
            mean[name].copy_(tensors[f"average.{name}"])
            progress.optimizer.state[weight] = {
                "step": torch.tensor(float(progress.step)),
                **{moment: tensors[f"{moment}.{name}"].clone() for moment in MOMENTS},
            }


def _append(path: Path, row: LogRow) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(LogRow._fields)
        writer.writerow(row)
