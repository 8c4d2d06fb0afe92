# SPDX-License-Identifier: Apache-2.0
"""`imagewam attention`: what the action tokens attend to, by camera, on the task's objects, and as pictures.

In the simulated cell the objects' pixels are known, so the attention on them is compared with their share
of the pixels and with controls. On recorded episodes only cameras are told apart.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.paths import find_checkpoint

if TYPE_CHECKING:
    from imagewam_ros.attention_frames import Frame
    from imagewam_ros.attention_study import Study
    from imagewam_ros.policy import Policy

DRIVERS = ("policy", "expert")
SHOWN = 3
"""Moments in the figure."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam attention`."""
    parser.add_argument("--policy", default="tiny", help="checkpoint: a name in models/ or a directory")
    parser.add_argument("--robot", default="sim_cell", help="robot name or path to its YAML")
    parser.add_argument("--task", default="tray_lift", help="task of the simulated cell")
    parser.add_argument(
        "--recorded", type=Path, nargs="+", help="recorded episodes to look at instead of simulated ones"
    )
    parser.add_argument("--driver", default="policy", help="who plays the simulated episodes: policy or expert")
    parser.add_argument("--episodes", type=int, default=20, help="simulated; episode k uses seed S + k")
    parser.add_argument("--seed", type=int, default=1000, help="S, of the first episode")
    parser.add_argument("--every", type=float, default=0.4, help="s between two frames of an episode")
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[], help="of the action expert, from 0; all if left out"
    )
    parser.add_argument("--heads", type=int, nargs="+", default=[], help="of each layer, from 0; all if left out")
    parser.add_argument("--figure", type=Path, help="PNG: mosaic beside heat map at three moments of the first episode")
    parser.add_argument("--grid", type=Path, help="PNG: a panel for each layer and head, at the first moment")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print the tables and write the pictures."""
    from imagewam_ros.attention_study import study
    from imagewam_ros.policy import Policy
    from imagewam_ros.sim.tasks import find_task

    if arguments.driver not in DRIVERS:
        raise ConfigError(unknown_name("driver", arguments.driver, DRIVERS))
    if arguments.episodes < 2 or arguments.every < 0.05:
        raise ConfigError(
            f"asked for {arguments.episodes} episodes, a frame every {arguments.every} s; "
            "at least 2 are needed, because one is the other's control, and 0.05 s between frames"
        )
    robot = load_embodiment(arguments.robot)
    policy = Policy.load(find_checkpoint(arguments.policy), robot)
    frames = _frames(policy, arguments)
    found = study(policy, frames, find_task(arguments.task).instructions, arguments.layers, arguments.heads)
    line = figures(found, len(frames)) | {"policy": arguments.policy, "layers": arguments.layers or "all"}
    line |= {"heads": arguments.heads or "all", "contract_hash": policy.contract.hash}
    print(table(line))
    draw(policy, frames, arguments)
    if arguments.json:
        print(json.dumps(line))
    return 0


def figures(found: "Study", frames: int) -> dict[str, Any]:
    """Plain numbers of a study; bounds are 95 %."""
    from imagewam_ros.attention_study import OWN, gain, ratio

    groups: dict[str, Any] = {}
    for group, seen in found.seen.items():
        episodes = found.episodes[group]
        rows: dict[str, Any] = {}
        for condition, values in seen.items():
            row: dict[str, Any] = {"mass": sum(value.mass for value in values) / len(values)}
            row["times_area"] = ratio(values, episodes)._asdict()
            if condition != OWN:
                row["own_less_this"] = gain(seen[OWN], values, episodes)._asdict()
            rows[condition] = row
        area = sum(value.area for value in seen[OWN]) / len(seen[OWN])
        groups[group] = {"frames": len(episodes), "episodes": len(set(episodes.tolist())), "area": area, "rows": rows}
    first = next(iter(found.episodes.values()), None)
    layers = [ratio(values, first)._asdict() for values in found.layers] if first is not None else []
    rounded: dict[str, Any] = _rounded(
        {"frames": frames, "mass": dict(found.mass), "groups": groups, "layers_times_area": layers}
    )
    return rounded


def table(line: dict[str, Any]) -> str:
    """The numbers for people."""
    words = [f"{name} {100 * share:.1f} %" for name, share in line["mass"].items()]
    lines = [f"attention of the action tokens, mean of {line['frames']} frames: {', '.join(words)}"]
    for group, found in line["groups"].items():
        frames = f"{found['frames']} frames of {found['episodes']} episodes"
        lines += [
            "",
            f"{group}: {100 * found['area']:.1f} % of the pixels ({frames}; 95 % by resampling episodes)",
            f"{'condition':<22}{'of image attention':>19}{'times its pixels':>24}{'own less this, points':>30}",
        ]
        for condition, row in found["rows"].items():
            gap = _bounds(row["own_less_this"], 100) if "own_less_this" in row else ""
            times = _bounds(row["times_area"])
            lines.append(f"{condition:<22}{100 * row['mass']:>17.1f} %{times:>24}{gap:>30}")
    if line["layers_times_area"]:
        layers = line["layers"] if isinstance(line["layers"], list) else range(len(line["layers_times_area"]))
        each = [f"{i}: {value['mean']:.2f}" for i, value in zip(layers, line["layers_times_area"], strict=True)]
        lines += ["", f"times their pixels by layer, own instruction: {', '.join(each)}"]
    return "\n".join(lines)


def draw(policy: "Policy", frames: Sequence["Frame"], arguments: argparse.Namespace) -> None:
    """Write the pictures that were asked for."""
    from imagewam_ros.attention_figure import draw_heads, draw_moments
    from imagewam_ros.attention_study import attend
    from imagewam_ros.preview import to_image

    first = [frame for frame in frames if frame.episode == frames[0].episode]
    places = [round((len(first) - 1) * (i + 0.5) / SHOWN) for i in range(SHOWN)]
    chosen = [first[place] for place in sorted(set(places))]
    steps = policy.contract.denoising.steps
    what = f"what the action tokens of {arguments.policy} attend to, mean of {steps} denoising steps"
    of = [f"{kind} {_listed(getattr(arguments, kind))}" for kind in ("layers", "heads") if getattr(arguments, kind)]
    each, what = f"{what}, each on its own scale", f"{what}; {', '.join(of) or 'mean of all layers and heads'}"
    if arguments.figure:
        moments = []
        for frame in chosen:
            attention = attend(policy, frame).of(arguments.layers, arguments.heads)
            moments.append((frame, to_image(policy.inputs(frame.observation)[0]), attention))
        draw_moments(arguments.figure, policy.contract.mosaic, moments, what)
        print(f"figure: {arguments.figure}")
    if arguments.grid:
        whole = attend(policy, chosen[0])
        layers, heads = (
            numbers or list(range(count))
            for numbers, count in zip((arguments.layers, arguments.heads), whole.weights.shape, strict=False)
        )
        draw_heads(arguments.grid, to_image(policy.inputs(chosen[0].observation)[0]), whole, layers, heads, each)
        print(f"grid: {arguments.grid}")


def _frames(policy: "Policy", arguments: argparse.Namespace) -> list["Frame"]:
    from imagewam_ros.attention_frames import recorded, watch_expert, watch_policy
    from imagewam_ros.sim.cell import Cell

    every_ns = round(arguments.every / 0.05) * 50_000_000
    if arguments.recorded:
        episodes = [recorded(path, policy, i, every_ns) for i, path in enumerate(arguments.recorded)]
        return [frame for episode in episodes for frame in episode]
    watch = watch_policy if arguments.driver == "policy" else watch_expert
    cell = Cell(load_embodiment(arguments.robot), arguments.task)
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    frames = [frame for seed in seeds for frame in watch(cell, policy, seed, every_ns)]
    cell.close()
    return frames


def _bounds(value: dict[str, float], scale: float = 1.0) -> str:
    return f"{scale * value['mean']:.2f} [{scale * value['low']:.2f}, {scale * value['high']:.2f}]"


def _listed(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 5) if isinstance(value, float) else value
