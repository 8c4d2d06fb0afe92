# SPDX-License-Identifier: Apache-2.0
"""All stages from episodes to a checkpoint, in one run folder; what it holds already is not done again.

run.json                        what all of this is made of: episodes, checkpoints, numbers
pixels.npy demonstrations.npz   what was read from the episodes; reading.json says what was left out
autoencoder/                    trained image autoencoder
latents.npy                     every frame that is used, encoded once
instructions.safetensors        every prompt, encoded once
state.safetensors log.csv       progress of the network; best.safetensors has its best mean weights so far
checkpoint/ best/               what a robot loads: the last weights, and the best where these are others
report.json                     figures of the run
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.json_file import write_json
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.core.stats import Statistics
from imagewam_ros.data.dataset import Dataset, Demonstration, Rows
from imagewam_ros.data.episode import Provenance
from imagewam_ros.model.autoencoder import Flux2Codec
from imagewam_ros.model.checkpoint import Checkpoint, load_base, load_checkpoint, save_checkpoint
from imagewam_ros.model.factory import build_network
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.protocol import ImageCodec, Instruction, TextEncoder
from imagewam_ros.model.text import small_text
from imagewam_ros.model.wam import ImageWam
from imagewam_ros.policy import arm_space_of
from imagewam_ros.training.autoencoder import encode_all, quality, train_autoencoder
from imagewam_ros.training.best import keep_best
from imagewam_ros.training.board import Board
from imagewam_ros.training.disk import writing
from imagewam_ros.training.episodes import Chosen, check_episodes, choose_episodes, counted
from imagewam_ros.training.export import KEPT, write_checkpoints
from imagewam_ros.training.fit import check_fit
from imagewam_ros.training.metric import EARLY, ChunkError, chunk_error
from imagewam_ros.training.network import Progress, averaged, initialise, resume, start, train_network
from imagewam_ros.training.pixels import Footage, ReadConfig, load_demonstrations, read_footage
from imagewam_ros.training.presets import Preset, TrainConfig, contract_of
from imagewam_ros.training.prompts import encode_prompts
from imagewam_ros.training.run_record import hold_to, record_of
from imagewam_ros.training.samples import Samples
from imagewam_ros.training.team import Team, check_shares

if TYPE_CHECKING:
    from imagewam_ros.kinematics.arm_space import ArmSpace

QUALITY_FRAMES = 128

Made = TypeVar("Made")
Judge = Callable[[ImageWamNetwork], ChunkError]
"""How far off a network is on the held-out frames."""


@dataclass(frozen=True)
class Ground:
    """What a run stands on: contract, frozen encoders; statistics and space (or joints) when from a checkpoint."""

    contract: Contract
    codec: ImageCodec
    text: TextEncoder
    statistics: Mapping[str, Statistics] | None = None
    space: "ArmSpace | None" = None
    padded_dims: tuple[int, ...] = ()


def train(
    preset: Preset, data: Sequence[Path], out: Path, robot: Embodiment, seed: int,
    team: Team | None = None, base: Path | None = None, tensorboard: bool = False,
    read: ReadConfig | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run all stages and return the figures of the run.

    base is a checkpoint to go on from, with its contract, encoders and statistics (an untrained one has none: they
    come from the episodes); without it everything is learned from scratch. Raises ConfigError when the preset needs
    one, or when `out` was made of something else.
    """
    team, clock, config, read = team or Team(), Clock(), preset.training, read or ReadConfig()
    check_shares(config.batch, config.targets, team.size, config.accumulate)
    board = Board(out / "tensorboard") if tensorboard and team.leads else None
    chosen = choose_episodes(data, read.policy_runs)
    preset, checkpoint = _based(preset, base)
    contract = _contract(preset, robot, next(iter(chosen.episodes.values())), checkpoint)
    check_episodes(chosen.episodes, contract, robot)
    if team.leads:
        record = record_of(preset, chosen.episodes, contract, robot, seed, base, read.trim_idle)
        _say(hold_to(out, record, chosen.episodes))
        _prepare(preset, chosen, contract, checkpoint, out, seed, read, clock)
    team.wait()
    dataset = _dataset(load_demonstrations(out / "demonstrations.npz"), contract)
    learned, held = split(dataset.demonstrations, preset.training.held_out)
    used = dataset.every(preset.training.every)
    rows, held_rows = (np.intersect1d(dataset.of(places), used) for places in (learned, held))
    ground = _ground(preset, contract, checkpoint, out, dataset, robot)
    samples = _leader_first(team, partial(_samples, ground, dataset, rows, out))  # it keeps the encoded instructions
    remarks = check_fit(samples, rows) if ground.statistics else []
    if checkpoint is not None and not checkpoint.statistics:
        remarks = ["the base was never trained: statistics come from the episodes"]
    if team.leads:
        _say(*remarks)
    network, fresh = _network(preset, checkpoint)
    progress = _progress(network, preset, seed, out, team, fresh=fresh)
    judge = partial(chunk_error, samples=samples, rows=held_rows, mask_past_end=preset.training.mask_past_end)
    watch = partial(_watch, judge=judge, board=board, kept=out / KEPT)
    for until, drawn in phases(dataset, rows, preset.training):
        train_network(progress, samples, drawn, preset.training, seed, out, watch, board, until)
    clock.lap("network")
    report = {
        "variant": preset.spec.variant,
        "episodes": len(dataset.demonstrations),
        "held_out_episodes": len(held),
        "frames": len(dataset),
        "parameters": sum(weight.numel() for weight in build_network(preset.spec, "meta").parameters()),
        "psnr_db": _psnr(ground.codec, out, held_rows),
        "steps": progress.step,
        **_write(out, progress, preset, ground, samples, judge),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "processes": team.size,
        **clock.figures(),
    }
    if team.leads:
        with writing(out):
            write_json(out / "report.json", report)
    team.wait()
    return report


def _based(preset: Preset, base: Path | None) -> tuple[Preset, Checkpoint | None]:
    """The preset with the network that is trained, and the checkpoint to go on from."""
    if preset.needs_base and base is None:
        raise ConfigError("this preset goes on from pretrained weights: name a checkpoint with --base")
    checkpoint = load_base(base, "cpu", torch.float32) if base else None
    spec = checkpoint.spec if checkpoint else preset.spec
    return replace(preset, spec=replace(spec, prefix_at_zero=preset.training.prefix_at_zero)), checkpoint


def _write(
    out: Path, progress: Progress, preset: Preset, ground: Ground, samples: Samples, judge: Judge
) -> dict[str, Any]:
    """Write the checkpoints and return what report.json says of their held-out errors. All processes call it."""
    with averaged(progress) as mean:
        error = judge(mean)

    def write(folder: Path, network: ImageWamNetwork) -> None:
        contract = samples.contract
        model = ImageWam(network, ground.codec, ground.text, preset.spec, contract.prompt, contract.horizon)
        save_checkpoint(folder, model, contract, samples.statistics, torch.float16)

    folder, best = write_checkpoints(out, progress, preset, write)
    return {
        "chunk_error": round(error.all, 4),
        "chunk_error_early": round(error.early, 4),
        "chunk_error_of": {text: round(value, 4) for text, value in error.of.items()},
        "best": folder,
        "best_step": best.step if best else progress.step,
        "best_chunk_error": round(best.error if best else error.all, 4),
    }


def split(demonstrations: Sequence[Demonstration], held_out: float) -> tuple[list[int], list[int]]:
    """Places of the demonstrations to learn from and of those held out; at least one each.

    The held-out ones lie evenly among all, so that every folder that has many gives some. Stretches of one episode
    stay together: one that is learned would tell what the next one holds.
    """
    known = [(shown.name, shown.seed) for shown in demonstrations]
    episode = np.cumsum([0, *(a != b for a, b in pairwise(known))]).tolist()
    count = episode[-1] + 1
    held = min(max(1, round(count * held_out)), count - 1) if count > 1 else 0
    chosen = {(2 * i + 1) * count // (2 * held) for i in range(held)}
    learned = [place for place, number in enumerate(episode) if number not in chosen]
    return learned, [place for place, number in enumerate(episode) if number in chosen] or learned


def phases(dataset: Dataset, rows: Rows, config: TrainConfig) -> Iterator[tuple[int, Rows]]:
    """Up to which step to draw from which of `rows`, those drawn more often named more often.

    Raises ConfigError when an instruction to hold back is not demonstrated, or no other one is.
    """
    drawn = np.repeat(rows, np.where(dataset.time[rows] < EARLY, config.early, 1))
    texts = np.array([demonstration.instruction for demonstration in dataset.demonstrations])
    for text in set(config.held_back) - set(texts):
        known = ", ".join(sorted(set(texts)))
        raise ConfigError(f"{text!r}, which is to be held back, is no demonstrated instruction; these are: {known}")
    if config.held_back:
        rest = drawn[~np.isin(texts[dataset.owner[drawn]], config.held_back)]
        if not len(rest):
            raise ConfigError("every demonstrated instruction is held back, nothing is left to learn at first")
        yield min(config.hold_back_steps, config.steps), rest
    yield config.steps, drawn


def _leader_first(team: Team, make: Callable[[], Made]) -> Made:
    """Call `make` in every process; the others find the files that the leader's call left."""
    made = make() if team.leads else None
    team.wait()
    return make() if made is None else made


def _watch(reached: Progress, judge: Judge, board: Board | None, kept: Path) -> str:
    """Say, and show on the board, how far off the mean weights are on held-out frames; keep the best of them."""
    with averaged(reached) as mean:
        error = judge(mean)
    if board is not None:
        board.show(reached.step, {"chunk error/all": error.all, "chunk error/early": error.early})
    lowest = ", the lowest so far" if keep_best(reached, error.all, kept) else ""
    return f"held-out chunk error {error.all:.3f}{lowest}, early {error.early:.3f}{_each(error)}"


def _say(*lines: str) -> None:
    for line in filter(None, lines):
        print(line, flush=True)


def _each(error: ChunkError) -> str:
    """The error of each instruction, where there are several."""
    words = [f"{value:.3f} {text!r}" for text, value in error.of.items()]
    return "; " + ", ".join(words) if len(words) > 1 else ""


class Clock:
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
        """Seconds per stage, wall and CPU of this process, and the machine's cores."""
        figures: dict[str, Any] = {"cores": os.cpu_count()}
        for name, (wall, cpu) in self._laps.items():
            figures |= {f"{name}_s": round(wall), f"{name}_cpu_s": round(cpu)}
        return figures


def _contract(preset: Preset, robot: Embodiment, about: Provenance, base: Checkpoint | None) -> Contract:
    if base is None:
        return contract_of(preset, robot, about)
    base.contract.check(robot)
    return base.contract


def _prepare(
    preset: Preset, chosen: Chosen, contract: Contract, base: Checkpoint | None,
    out: Path, seed: int, read: ReadConfig, clock: Clock,
) -> None:  # fmt: skip
    """Read the episodes, train the autoencoder and encode the frames, where that is not done yet."""
    if chosen.left_out:
        _say(f"left out: {counted(chosen.left_out)}")
    footage = read_footage(list(chosen.episodes), contract.mosaic, out, read)
    _say(*footage.report.lines())
    clock.lap("reading")
    dataset = _dataset(footage.demonstrations, contract)
    rows = dataset.of(split(footage.demonstrations, preset.training.held_out)[0])
    codec = base.model.codec if base else _autoencoder(preset, footage, rows, seed, out)
    clock.lap("autoencoder")
    if not (out / "latents.npy").exists():
        used = dataset.every(preset.training.every)
        used = np.union1d(used, dataset.future(used))
        encode_all(codec, footage.mosaics, out / "latents.npy", used)
    clock.lap("encoding")


def _autoencoder(preset: Preset, footage: Footage, rows: Rows, seed: int, out: Path) -> ImageCodec:
    if not (out / "autoencoder" / "config.json").exists():
        begin = find_checkpoint(preset.begin_with) / "autoencoder" if preset.begin_with else None
        codec = Flux2Codec.load(begin) if begin else None
        trained = train_autoencoder(preset.autoencoder, footage.mosaics, rows, seed, codec)
        with writing(out / "autoencoder"):
            part = out / "autoencoder.part"
            shutil.rmtree(part, ignore_errors=True)
            trained.save(part)
            part.replace(out / "autoencoder")
    return Flux2Codec.load(out / "autoencoder")


def _dataset(demonstrations: Sequence[Demonstration], contract: Contract) -> Dataset:
    """Demonstrations as joints; the vectors of a contract with parts are made of absolute targets."""
    relative = (False,) * demonstrations[0].positions.shape[1] if contract.action else contract.relative
    return Dataset(demonstrations, contract.horizon, relative)


def _ground(
    preset: Preset, contract: Contract, base: Checkpoint | None, out: Path, dataset: Dataset, robot: Embodiment
) -> Ground:
    if base is not None:
        space = arm_space_of(contract, robot, base.statistics) if contract.action else None
        padded = preset.spec.network.padded_dims
        return Ground(contract, base.model.codec, base.model.text, base.statistics or None, space, padded)
    prompts = sorted({contract.prompt.format(task=d.instruction) for d in dataset.demonstrations})
    width = preset.spec.network.text_dim // len(preset.spec.text.layers)
    text = small_text(prompts, preset.spec.text, width, max_length=contract.text_length)
    return Ground(contract, Flux2Codec.load(out / "autoencoder"), text)


def _samples(ground: Ground, dataset: Dataset, rows: Rows, out: Path) -> Samples:
    statistics = ground.statistics
    if statistics is None:
        statistics = dict(zip(("state", "action"), dataset.statistics(rows), strict=True))
    prompts = {d.instruction: ground.contract.prompt.format(task=d.instruction) for d in dataset.demonstrations}
    tokens = encode_prompts(ground.text, sorted(set(prompts.values())), out / "instructions.safetensors")
    instructions = {text: Instruction(text, tokens[prompt]) for text, prompt in prompts.items()}
    latents, pixels = np.load(out / "latents.npy"), np.load(out / "pixels.npy", mmap_mode="r")
    space, padded = ground.space, ground.padded_dims
    return Samples(dataset, latents, ground.contract, statistics, instructions, ground.text, pixels, space, padded)


def _network(preset: Preset, base: Checkpoint | None) -> tuple[ImageWamNetwork, bool]:
    """The network that training begins with, and whether its weights are still to be drawn."""
    if base is not None:
        return base.model.network, False
    if not preset.begin_with:
        return build_network(preset.spec), True
    first = load_checkpoint(find_checkpoint(preset.begin_with), "cpu", torch.float32)
    if first.spec.network != preset.spec.network:
        raise ConfigError(f"{preset.begin_with} has another network than the preset; leave begin_with empty")
    return first.model.network, False


def _progress(network: ImageWamNetwork, preset: Preset, seed: int, out: Path, team: Team, *, fresh: bool) -> Progress:
    if fresh:
        initialise(network, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # adapters are drawn at random
        progress = start(network, preset.training, team)
    if (out / "state.safetensors").exists():
        resume(progress, out / "state.safetensors")
    elif team.leads:
        (out / KEPT).unlink(missing_ok=True)  # of a run that begins again
    return progress


def _psnr(codec: ImageCodec, out: Path, rows: Rows) -> float:
    mosaics = np.load(out / "pixels.npy", mmap_mode="r")[rows[:: len(rows) // QUALITY_FRAMES + 1]]
    return round(quality(codec, mosaics).psnr_db, 2)
