# SPDX-License-Identifier: Apache-2.0
"""run.json: what a run folder was made of, so that nothing in it is used for other episodes, weights or numbers.

It has a part for each stage. A part counts from the first file on that its stage has left; until then it is written
anew, so a number may be changed as long as nothing was made with it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.json_file import write_json
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.data.bag import metadata_hash
from imagewam_ros.data.episode import Provenance
from imagewam_ros.evaluation.source import checkpoint_hash
from imagewam_ros.training.disk import writing
from imagewam_ros.training.pixels import load_demonstrations
from imagewam_ros.training.presets import Preset

Record = dict[str, dict[str, Any]]

EPISODES = "episodes"
LEFT_BY = {
    "reading": ("demonstrations.npz",),
    "encoding": ("autoencoder", "latents.npy"),
    "network": ("state.safetensors", "best.safetensors"),
}
"""Stages and the files that show that one has begun to count."""

SAME_RESULT = ("save_every", "recompute", "accumulate")
"""Numbers of a training that change how it is computed and not what comes out, but for rounding."""


def record_of(
    preset: Preset, episodes: Mapping[Path, Provenance], contract: Contract, robot: Embodiment, seed: int,
    base: Path | None = None, trim_idle: bool = False,
) -> Record:  # fmt: skip
    """Return what a run with these would be made of, as plain data; preset is the one that is trained."""
    training = {name: value for name, value in asdict(preset.training).items() if name not in SAME_RESULT}
    begin = find_checkpoint(preset.begin_with) if preset.begin_with and not base else None
    trained_encoder = {"seed": seed, "autoencoder": asdict(preset.autoencoder), "held_out": preset.training.held_out}
    reading = {"robot": robot.name, "mosaic": asdict(contract.mosaic), "trim_idle": trim_idle}
    encoding = {
        "base": checkpoint_hash(base) if base else "",
        "begin_with": checkpoint_hash(begin) if begin else "",
        "horizon": contract.horizon,
        "every": preset.training.every,
        **({} if base else trained_encoder),
    }
    network = {"seed": seed, **training, "model": preset.spec.to_dict(), "contract": contract.to_dict()}
    named = {metadata_hash(path)[:16]: f"{path.parent.name}/{path.name}" for path in episodes}
    record: Record = {"reading": {EPISODES: named, **_flat(reading)}}
    record |= {"encoding": _flat(encoding), "network": _flat(network)}
    plain: Record = json.loads(json.dumps(record))
    return plain


def hold_to(out: Path, record: Record, episodes: Mapping[Path, Provenance]) -> str:
    """Write run.json to `out`, or find there that nothing was made of anything else. Returns a word to the user or "".

    Raises ConfigError, naming the field and what to do, where `out` was made of something else.
    """
    path, said = out / "run.json", ""
    if path.exists():
        made = json.loads(path.read_text(encoding="utf8"))
        for stage in _begun(out):
            _compare(out, stage, made[stage], record[stage])
    elif _begun(out):
        said = _adopt(out, episodes)
    with writing(path):
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
    return said


def _begun(out: Path) -> list[str]:
    """Stages that have left something, and those before them."""
    stages = list(LEFT_BY)
    left = [place for place, stage in enumerate(stages) if any((out / name).exists() for name in LEFT_BY[stage])]
    return stages[: max(left, default=-1) + 1]


def _compare(out: Path, stage: str, made: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first field that differs; what an older version did not note is not compared."""
    again = f"remove {out} to make all of it again, or choose another --out"
    if stage == "network":
        again = (
            f"remove state.safetensors, best.safetensors and log.csv in {out} to train anew on what is encoded there, "
            f"or go on from {out / 'checkpoint'} with --base and another --out"
        )
    for name, wanted in asked.items():
        found = made.get(name, wanted)
        if found == wanted:
            continue
        if name == EPISODES:
            raise ConfigError(f"{out} was made of {_difference(found, wanted)}; {again}")
        raise ConfigError(f"{out} was made with {name} {found!r}, asked is {wanted!r}; {again}")


def _difference(made: Mapping[str, str], asked: Mapping[str, str]) -> str:
    """Which episodes a run was not made of, or was made of and are not given, in words."""
    more = sorted(asked[key] for key in asked.keys() - made.keys())
    less = sorted(made[key] for key in made.keys() - asked.keys())
    words = [f"{len(made)} episodes, {len(asked)} are given"]
    words += [f"{len(more)} of them new or changed ({_few(more)})"] if more else []
    words += [f"{len(less)} missing or changed ({_few(less)})"] if less else []
    return ", ".join(words)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _adopt(out: Path, episodes: Mapping[Path, Provenance]) -> str:
    """Take a folder without run.json, of an older version, as made of `episodes` when its demonstrations are theirs.

    Raises ConfigError when they are not. What else it was made with nobody can tell.
    """
    table = out / "demonstrations.npz"
    known = {(d.name, d.seed, d.instruction) for d in load_demonstrations(table)} if table.exists() else set()
    given = {(path.name, about.seed, about.instruction): bool(about.interventions) for path, about in episodes.items()}
    other = sorted(name for name, *_ in known - given.keys())
    other += sorted(key[0] for key, corrections in given.items() if key not in known and not corrections)
    if other:
        raise ConfigError(
            f"{out} has no run.json, because an older version made it, and its demonstrations are not those of the "
            f"{len(episodes)} episodes given ({_few(other)}); remove it to make it again, or choose another --out"
        )
    return (
        f"{out} has no run.json, because an older version made it. Its demonstrations are those given; that base, seed "
        "and numbers are the ones it was made with is taken on trust"
    )


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, whose keys are paths with dots."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
