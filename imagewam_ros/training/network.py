# SPDX-License-Identifier: Apache-2.0
"""The training loop: joint flow matching, running mean of the weights, resumable to the bit on a CPU.

Batches depend on (seed, step) alone, so a resumed run sees what an uninterrupted one would have.
"""

import csv
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import trange

from imagewam_ros.core.errors import CheckpointError, ImageWamError
from imagewam_ros.data.dataset import Rows
from imagewam_ros.model import flow
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.protocol import JointBatch
from imagewam_ros.training.board import Board
from imagewam_ros.training.disk import writing
from imagewam_ros.training.lora import inject
from imagewam_ros.training.presets import TrainConfig
from imagewam_ros.training.rates import cosine
from imagewam_ros.training.samples import Samples
from imagewam_ros.training.team import Team, gather_no_more, gathered, like, part_of, shard, share, whole

LOG_EVERY = 50
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Progress:
    """What a run has reached: network, running mean of its trained weights by name (or none), optimiser, steps done."""

    network: ImageWamNetwork
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    team: Team = field(default_factory=Team)
    step: int = 0

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Weights that are trained, by name."""
        return {name: weight for name, weight in self.network.named_parameters() if weight.requires_grad}


class LogRow(NamedTuple):
    """One line of log.csv: means since the line before."""

    step: int
    action: float
    video: float
    learning_rate: float
    seconds: float
    cpu_seconds: float


def start(network: ImageWamNetwork, config: TrainConfig, team: Team | None = None) -> Progress:
    """Begin with `network` as it is, sharded over the team. Adapters are put in when config asks for them."""
    team = team or Team()
    if config.lora_rank:
        inject(network, config.lora_rank, config.lora_alpha)
    shard(network.train(), team)
    network.recompute = config.recompute
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=team.size == 1,
    )
    progress = Progress(network, {}, optimizer, team)
    if config.average:
        progress.average = {name: weight.detach().clone() for name, weight in progress.trained.items()}
    return progress


def train_network(
    progress: Progress,
    samples: Samples,
    rows: Rows,
    config: TrainConfig,
    seed: int,
    store: Path,
    watch: Callable[[Progress], str] | None = None,
    board: Board | None = None,
    until: int | None = None,
) -> None:
    """Train to the end of `config` or to step `until`, saving to `store` on the way; `watch` may add a word to the log.

    What is saved has been watched, so a resumed run has seen what an uninterrupted one would have. Raises
    ImageWamError as `learn` does.
    """
    begin, cpu = time.perf_counter(), time.process_time()
    sums = torch.zeros(2)
    leads = progress.team.leads
    bar = trange(
        progress.step,
        config.steps if until is None else until,
        unit="step",
        desc="network",
        initial=progress.step,
        total=config.steps,
        disable=not leads,
    )
    for _ in bar:
        loss = train_step(progress, samples, rows, config, seed)
        shared = progress.team.mean(torch.tensor([loss.action.item(), loss.video.item()]))
        sums += shared
        if progress.step % LOG_EVERY == 0:
            rate = progress.optimizer.param_groups[0]["lr"]
            action, video = (sums / LOG_EVERY).tolist()
            clocks = time.perf_counter() - begin, time.process_time() - cpu
            row = LogRow(progress.step, action, video, rate, *clocks)
            if leads:
                _append(store / "log.csv", row)
            if leads and board is not None:
                board.show(row.step, {f"loss/{name}": getattr(row, name) for name in ("action", "video")})
            bar.set_postfix_str(f"action {row.action:.3f} image {row.video:.3f}", refresh=False)
            sums.zero_()
        if progress.step % config.save_every == 0 or progress.step == config.steps:
            if watch is not None:
                said = watch(progress)
                if leads:
                    bar.write(f"step {progress.step}: {said}")
            save(progress, store / "state.safetensors")


def train_step(progress: Progress, samples: Samples, rows: Rows, config: TrainConfig, seed: int) -> flow.Losses:
    """Do one step on a batch of its own and return its losses."""
    batch = part_of(samples.draw(rows, config, seed, progress.step), progress.team)
    return learn(progress, batch, config, samples.contract.denoising.shift)


def learn(progress: Progress, batch: JointBatch, config: TrainConfig, shift: float) -> flow.Losses:
    """Do one step on `batch`, whose timesteps were drawn with `shift`, and return its losses before the step.

    The batch goes through the network in equal parts, one after another, where config accumulates. Raises
    ImageWamError, before the weights change, when loss or gradient is no number any more.
    """
    for group in progress.optimizer.param_groups:
        group["lr"] = config.learning_rate * cosine(progress.step, config.steps, config.warmup, config.floor)
    progress.optimizer.zero_grad()
    count = config.accumulate
    parts = [_gradient(progress, share(batch, place, count), config, shift) for place in range(count)]
    loss = flow.Losses(*(torch.stack(of_parts).mean() for of_parts in zip(*parts, strict=True)))
    trained = progress.trained
    norm = float(whole(nn.utils.clip_grad_norm_(trained.values(), config.clip)))
    if not math.isfinite(float(loss.total) + norm):
        raise ImageWamError(
            f"loss is {float(loss.total)} and its gradient {norm} at step {progress.step}; "
            "train with a lower --learning-rate. Neither the weights nor what was saved last are touched"
        )
    progress.optimizer.step()
    progress.step += 1
    past = min(config.average, (1 + progress.step) / (10 + progress.step))
    with torch.no_grad():
        for name, mean in progress.average.items():
            mean.lerp_(trained[name], 1 - past)
    return loss


def _gradient(progress: Progress, batch: JointBatch, config: TrainConfig, shift: float) -> flow.Losses:
    """Add the gradient of one part of a batch and return its losses."""
    # Without autocast's cache, which would keep every layer's weights in bfloat16 until the forward is over.
    wanted = config.precision == "bfloat16"
    with torch.autocast(progress.team.device.type, torch.bfloat16, enabled=wanted, cache_enabled=False):
        output = progress.network.joint_forward(batch)
    loss = flow.losses(output, batch, shift)
    (loss.total / config.accumulate).backward()
    return flow.Losses(*(value.detach() for value in loss))


@contextmanager
def averaged(progress: Progress) -> Iterator[ImageWamNetwork]:
    """The network with the running mean, if one is kept, in place of its trained weights until the block is left."""
    trained = {name: weight for name, weight in progress.trained.items() if name in progress.average}
    kept = {name: weight.detach().clone() for name, weight in trained.items()}
    try:
        _copy(progress.average, trained)
        yield progress.network.eval()
    finally:
        gather_no_more(progress.network)
        _copy(kept, trained)
        progress.network.train()


def _copy(values: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])


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
    """Write trained weights, mean and moments; the file is whole or not there. All processes call it.

    Weights without a gradient so far (of the image's head, where no sample has a target) have no moments. Raises
    DiskError when the disk is full.
    """
    state = progress.optimizer.state
    tensors: dict[str, Tensor] = {}
    for name, weight in progress.trained.items():
        tensors[f"network.{name}"] = weight
        if name in progress.average:
            tensors[f"average.{name}"] = progress.average[name]
        if state[weight]:
            tensors |= {f"{moment}.{name}": state[weight][moment] for moment in MOMENTS}
    found = gathered(tensors, progress.team)
    if progress.team.leads:
        write_tensors(path, {"step": torch.tensor(progress.step), **found})
    progress.team.wait()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all, with words about it. Raises DiskError when the disk is full."""
    part = path.with_suffix(".part")
    with writing(path):
        save_file(dict(tensors), part, about)
        part.replace(path)


def resume(progress: Progress, path: Path) -> None:
    """Continue from what `save` wrote. Raises CheckpointError when it belongs to another network."""
    fused = bool(progress.optimizer.param_groups[0]["fused"])
    with safe_open(path, "pt") as file, torch.no_grad():
        known, trained = set(file.keys()), progress.trained
        missing = [name for name in trained if f"network.{name}" not in known]
        if missing:
            raise CheckpointError(f"{path} lacks {', '.join(missing)}; it belongs to another preset")
        progress.step = int(file.get_tensor("step"))
        for name, weight in trained.items():
            weight.copy_(like(file.get_tensor(f"network.{name}"), weight))
            if name in progress.average:
                progress.average[name].copy_(like(file.get_tensor(f"average.{name}"), weight))
            if f"{MOMENTS[0]}.{name}" in known:
                moments = {moment: file.get_tensor(f"{moment}.{name}") for moment in MOMENTS}
                progress.optimizer.state[weight] = moments_like(weight, moments, progress.step, fused)


def moments_like(weight: Tensor, moments: Mapping[str, Tensor], step: int, fused: bool) -> dict[str, Tensor]:
    """What AdamW keeps of a weight after `step` steps. Fused it counts them on the weight's device, else on the CPU."""
    counted = torch.tensor(float(step), device=weight.device if fused else "cpu")
    return {"step": counted, **{name: like(moment, weight) for name, moment in moments.items()}}


def _append(path: Path, row: LogRow) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(LogRow._fields)
        writer.writerow(row)
