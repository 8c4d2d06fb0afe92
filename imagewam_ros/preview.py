# SPDX-License-Identifier: Apache-2.0
"""`imagewam preview`: the goal image that the video head imagines, beside what came, with how good it is.

The goal is one horizon ahead of the observation. Actions never see it: it shows what the weights
expect, not why the arms move.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.core.schema import Image, Observation
from imagewam_ros.policy import Policy

if TYPE_CHECKING:
    from imagewam_ros.sim.cell import Cell

BAND = 14
"""Height of the strip that says that an image was imagined, px."""
LABEL = "IMAGINED, no camera"
SHOWN = 4
"""Moments in the picture."""
Figures = dict[str, Any]


class Moment(NamedTuple):
    """Mosaics uint8 [H, W, 3]: the observation, what came later, that through the autoencoder, what was imagined.

    psnr_db compares with what came: the imagined goal, the present image (a goal that changes nothing)
    and what the autoencoder makes of what came (no goal can be better).
    """

    seed: int
    time_s: float
    now: Image
    came: Image
    decoded: Image
    imagined: Image

    @property
    def psnr_db(self) -> tuple[float, float, float]:
        """Of imagined, now and decoded."""
        return psnr_db(self.imagined, self.came), psnr_db(self.now, self.came), psnr_db(self.decoded, self.came)


@torch.inference_mode()
def imagine(policy: Policy, observation: Observation, seed: int = 0) -> Iterator[Image | None]:
    """Yield None after each piece of work and the goal image, uint8 RGB [H, W, 3] of the mosaic's size, last.

    No piece is longer than encoding the instruction, or one forward of the backbone with two images.
    Raises CheckpointError where the checkpoint has no trained video head or no decoder, ConfigError for
    too long an instruction.
    """
    model, instruction = policy.model, policy.encoded(observation.instruction)
    yield None
    pixels, proprio = policy.inputs(observation)
    goal = torch.empty(0)
    for latents in model.imagine(pixels, proprio, instruction, seed, policy.contract.denoising):
        goal = latents
        yield None
    yield to_image(model.codec.decode(goal))


def labelled(image: Image, label: str = LABEL) -> Image:
    """The image above a strip that says what it is, so that no viewer can mistake it for a camera's."""
    from PIL import Image as Picture
    from PIL import ImageDraw, ImageFont

    height, width = image.shape[:2]
    canvas = Picture.new("RGB", (width, height + BAND), (150, 0, 0))
    canvas.paste(Picture.fromarray(image), (0, 0))
    ImageDraw.Draw(canvas).text((3, height), label, fill="white", font=ImageFont.load_default(10))
    return np.asarray(canvas)


def to_image(pixels: Tensor) -> Image:
    """Pixels (1, 3, H, W) in [-1, 1] as uint8 RGB [H, W, 3]."""
    image: Image = (
        ((pixels[0].float().permute(1, 2, 0).cpu().numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    )
    return image


def psnr_db(image: Image, truth: Image) -> float:
    """Peak signal to noise of uint8 images; identical ones give that of an error of one step in every 10^4 pixels."""
    error = float(np.mean((image.astype(np.float64) - truth.astype(np.float64)) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-4)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam preview`."""
    parser.add_argument("--policy", default="tiny", help="checkpoint: a name in models/ or a directory")
    parser.add_argument("--robot", default="sim_cell", help="robot name or path to its YAML")
    parser.add_argument("--task", default="tray_lift", help="task of the simulated cell")
    parser.add_argument("--episodes", type=int, default=5, help="of the expert; episode k uses seed S + k")
    parser.add_argument("--seed", type=int, default=1000, help="S, of the first episode")
    parser.add_argument("--every", type=float, default=0.6, help="s between two previews of an episode")
    parser.add_argument("--instruction", help="told to the policy instead of the scene's")
    parser.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG of the first episode's previews")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print how near the goals come. Returns 1 when the present image is the better forecast."""
    from imagewam_ros.sim.cell import Cell

    if arguments.episodes < 1 or arguments.every < 0.05:
        raise ConfigError(f"episodes at least 1, every at least 0.05 s; found {arguments.episodes}, {arguments.every}")
    cell = Cell(load_embodiment(arguments.robot), arguments.task)
    policy = Policy.load(find_checkpoint(arguments.policy), cell.embodiment)
    step = round(arguments.every / 0.05)
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    moments = [moment for seed in seeds for moment in watch(cell, policy, seed, step, arguments.instruction)]
    cell.close()
    line = figures(moments) | {"policy": arguments.policy, "task": arguments.task, "ahead_s": ahead_s(policy)}
    print(
        f"{line['goals']} goals {line['ahead_s']:.2f} s ahead, mean PSNR against what came: "
        f"imagined {line['imagined_db']:.1f} dB, present image {line['present_db']:.1f} dB, "
        f"autoencoder alone {line['autoencoder_db']:.1f} dB; nearer than the present image in {line['nearer']}"
    )
    draw(arguments.out, [moment for moment in moments if moment.seed == seeds[0]][:SHOWN], ahead_s(policy))
    print(f"picture: {arguments.out}")
    if arguments.json:
        print(json.dumps(line))
    return 0 if line["imagined_db"] > line["present_db"] else 1


def watch(cell: "Cell", policy: Policy, seed: int, step: int, instruction: str | None = None) -> list[Moment]:
    """Goals imagined at every `step` frames of an expert's episode whose future is known."""
    from imagewam_ros.sim.demonstration import demonstrate

    found = demonstrate(cell, seed, perturb=False)
    ahead = round(ahead_s(policy) * 1e9 / found.period_ns)
    moments = []
    for row in range(0, len(found.stamps_ns) - ahead, step):
        now, later = ({name: images[at] for name, images in found.images.items()} for at in (row, row + ahead))
        told = instruction or found.instruction
        observation = Observation(int(found.stamps_ns[row]), now, found.positions[row], told)
        *_, goal = imagine(policy, observation, seed)
        assert goal is not None
        came = policy.inputs(Observation(0, later, found.positions[row], told))[0]
        decoded = policy.model.codec.decode(policy.model.encode_images(came))
        present = to_image(policy.inputs(observation)[0])
        moments.append(Moment(seed, observation.stamp_ns / 1e9, present, to_image(came), to_image(decoded), goal))
    return moments


def ahead_s(policy: Policy) -> float:
    """How far ahead of the observation the goal is, as in training: one chunk."""
    return policy.contract.horizon * policy.contract.period_ns / 1e9


def figures(moments: Sequence[Moment]) -> Figures:
    """Means over moments."""
    values = np.array([moment.psnr_db for moment in moments])
    imagined, present, autoencoder = values.mean(0).round(2).tolist()
    nearer = int((values[:, 0] > values[:, 1]).sum())
    names = {"imagined_db": imagined, "present_db": present, "autoencoder_db": autoencoder}
    return {"goals": len(moments), "nearer": nearer, **names}


def draw(path: Path, moments: Sequence[Moment], seconds: float) -> None:
    """Write a row per moment: now, imagined, what came."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = moments[0].now.shape[:2]
    figure = Figure(figsize=(13, 0.5 + len(moments) * (4.2 * height / width + 0.35)), layout="constrained", dpi=110)
    axes: Any = figure.subplots(len(moments), 3, squeeze=False)
    for row, moment in zip(axes, moments, strict=True):
        imagined, present, _ = moment.psnr_db
        titles = (
            f"seen after {moment.time_s:.1f} s ({present:.1f} dB)",
            f"IMAGINED for {seconds:.1f} s later ({imagined:.1f} dB)",
            f"what came {seconds:.1f} s later",
        )
        for axis, image, title in zip(row, (moment.now, moment.imagined, moment.came), titles, strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(title, fontsize=9, loc="left")
            axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))
