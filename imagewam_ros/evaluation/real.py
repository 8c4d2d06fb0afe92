# SPDX-License-Identifier: Apache-2.0
"""Trials on a real robot that an operator judges: their order, their book, the start's picture and the report. No ROS.

Policies are tried blind, in blocks: each block holds every policy once, in an order that only the seed knows, so that
light, wear and the operator's mood fall on all alike, and a block is a pair for the test.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pictures

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.json_file import write_json
from imagewam_ros.core.schema import Image
from imagewam_ros.data.row_log import add_row, make_folder, read_rows
from imagewam_ros.evaluation.interval import paired_interval, paired_p_value, wilson
from imagewam_ros.evaluation.source import identity
from imagewam_ros.remote.client import is_remote

LABELS = ("success", "failure")
SIDE = 2
"""Policies in a comparison."""


@dataclass(frozen=True)
class RealConfig:
    """What is tried: one or two policies, `trials` times each, for at most timeout_s, on a running graph.

    reference is the picture of the start pose; without one the first trial's start becomes it. seed is that of the
    order; without one it is drawn, so that nobody knows the order from an earlier session.
    """

    policies: tuple[str, ...]
    instruction: str
    out: Path
    trials: int = 10
    timeout_s: float = 30.0
    seed: int | None = None
    robot: str = "sim_cell"
    device: str = "cpu"
    reference: Path | None = None
    namespace: str = ""
    use_sim_time: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.policies) <= SIDE:
            raise ConfigError(f"one policy or two are compared, found {len(self.policies)}")
        for policy in self.policies:
            if is_remote(policy):
                raise ConfigError(
                    f"the ROS graph runs checkpoints, not servers like {policy}; copy its checkpoint here"
                )
        if not self.instruction.strip():
            raise ConfigError('say what the policy shall do: --instruction "put the mug into the basket"')
        if self.trials < 1 or not 0 < self.timeout_s <= 3600:
            raise ConfigError(f"trials must be positive and timeout_s 0 to 3600, found {self.trials}, {self.timeout_s}")
        if self.reference is not None and not self.reference.is_file():
            raise ConfigError(f"no picture {self.reference}; check --reference")


@dataclass(frozen=True)
class RealTrial:
    """One judged trial. policy is its place in the configuration; difference is that of the start's pictures."""

    number: int
    block: int
    policy: int
    label: str
    duration_s: float
    chunks: int
    ended: str
    when: str
    difference: float | None

    @property
    def success(self) -> bool:
        """The operator's verdict."""
        return self.label == LABELS[0]


class Book:
    """trials.jsonl: a line per judged trial, written at once, so that a stopped session goes on."""

    def __init__(self, config: RealConfig) -> None:
        """Open the book of config.out. Raises ConfigError when it is of other policies or another order."""
        make_folder(config.out)
        self._path, about = config.out / "trials.jsonl", config.out / "session.json"
        known = json.loads(about.read_text(encoding="utf8")) if about.exists() else None
        drawn: int = known["seed"] if known else secrets.randbelow(2**31)
        seed = drawn if config.seed is None else config.seed
        self.config = config = replace(config, seed=seed)
        session = {
            "policies": [identity(policy) for policy in config.policies],
            "robot": config.robot,
            "instruction": config.instruction,
            "trials": config.trials,
            "seed": seed,
        }
        if known is None:
            write_json(about, session)
        elif known != session:
            raise ConfigError(f"{about} is of another session; choose another --out, or give the same options again")
        self.trials = [RealTrial(**row) for row in read_rows(self._path)]
        self.order = schedule(len(config.policies), config.trials, seed)

    @property
    def next(self) -> int | None:
        """Number of the next trial, None when all are judged."""
        return len(self.trials) if len(self.trials) < len(self.order) else None

    def write(self, trial: RealTrial) -> None:
        """Keep one trial. Raises DiskError when it cannot be written."""
        add_row(self._path, asdict(trial))
        self.trials.append(trial)


def schedule(policies: int, trials: int, seed: int) -> list[int]:
    """Which policy each trial is of: `trials` blocks that hold every one once, each block shuffled."""
    rng = np.random.default_rng(seed)
    return [int(policy) for _ in range(trials) for policy in rng.permutation(policies)]


def blend(reference: Image, live: Image) -> Image:
    """Half of each: where the scene stands as in the reference, nothing is seen twice. Scales the reference."""
    return ((_like(reference, live).astype(np.uint16) + live) // 2).astype(np.uint8)


def difference(reference: Image, live: Image) -> float:
    """Mean absolute difference of two pictures in grey levels, 0 to 255. Scales the reference."""
    return float(np.abs(_like(reference, live).astype(np.float64) - live).mean())


def _like(reference: Image, live: Image) -> Image:
    if reference.shape == live.shape:
        return reference
    size = (live.shape[1], live.shape[0])
    return np.asarray(Pictures.fromarray(reference).resize(size, Pictures.Resampling.BILINEAR))


def read_picture(path: Path) -> Image:
    """Read a picture as uint8 RGB [H, W, 3]."""
    with Pictures.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def write_picture(path: Path, image: Image) -> None:
    """Write a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Pictures.fromarray(image).save(path)


def result(book: Book) -> dict[str, Any]:
    """Return the line of a session: figures of each policy, and of whole blocks where two are compared."""
    config = book.config
    names = [identity(policy) for policy in config.policies]
    rows = {letter: _figures(book, i) for i, letter in enumerate("AB"[: len(names)])}
    first = rows["A"]
    line = {"task": config.instruction, "mode": "real", "robot": config.robot, "seed": config.seed, **names[0]}
    line |= {key: first[key] for key in ("episodes", "successes", "interval")}
    if len(names) == SIDE:
        line["paired"] = {"against": names[1]["policy"], "checkpoint": names[1]["checkpoint"], **_compared(book.trials)}
        line["B"] = names[1]
    return {**line, "rows": {name: row for name, row in rows.items() if row["episodes"]}}


def _figures(book: Book, policy: int) -> dict[str, Any]:
    mine = [trial for trial in book.trials if trial.policy == policy]
    solved = [trial.duration_s for trial in mine if trial.success]
    return {
        "episodes": len(mine),
        "successes": len(solved),
        "interval": [round(bound, 4) for bound in wilson(len(solved), len(mine))] if mine else [0.0, 1.0],
        "mean_time_s": round(sum(solved) / len(solved), 2) if solved else None,
        "failed_seeds": [trial.number for trial in mine if not trial.success],
    }


def _compared(trials: Sequence[RealTrial]) -> Mapping[str, Any]:
    """Compare both policies over the blocks in which both were judged."""
    blocks: dict[int, dict[int, bool]] = {}
    for trial in trials:
        blocks.setdefault(trial.block, {})[trial.policy] = trial.success
    pairs = [(block[0], block[1]) for block in blocks.values() if len(block) == SIDE]
    both, first, second, neither = (
        pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    counts = {"both": both, "only_first": first, "only_second": second, "neither": neither}
    if not pairs:
        return {**counts, "difference": 0.0, "interval": [-1.0, 1.0], "p": 1.0}
    interval = [round(bound, 4) for bound in paired_interval(both, first, second, neither)]
    share = round((first - second) / len(pairs), 4)
    return {**counts, "difference": share, "interval": interval, "p": round(paired_p_value(first, second), 4)}
