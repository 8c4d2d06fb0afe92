# SPDX-License-Identifier: Apache-2.0
"""What an official checkpoint's config.yaml and dataset_stats.json say, and what they leave open.

The file is searched for the authors' keys wherever they lie; a key that says two things at
once is refused. Source: docs/model.md.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagewam_ros.core.config import read_yaml
from imagewam_ros.core.errors import CheckpointError, unknown_name
from imagewam_ros.core.stats import Statistics, constant_range

NORMALISATIONS = {"z-score": "zscore", "min/max": "minmax", "q01/q99": "quantile"}
"""The authors' names and ours."""

FIELDS = {
    "mean": "global_mean",
    "std": "global_std",
    "minimum": "global_min",
    "maximum": "global_max",
    "q01": "global_q01",
    "q99": "global_q99",
}
"""Our statistics and the authors'."""

PADDED_16 = (7, 15)
"""Where the 14 joints of two arms are padded to 16 (Source: the authors' end-effector fine-tuning)."""


@dataclass(frozen=True)
class OfficialFacts:
    """What config.yaml says; None where it does not."""

    normalisation: str | None = None
    horizon: int | None = None
    text_length: int | None = None
    pack_after_text: bool | None = None
    raw_action_dim: int | None = None
    lora_alpha: float | None = None
    relative: bool | None = None


def read_facts(path: Path) -> OfficialFacts:
    """Read config.yaml. Raises CheckpointError when a key says two things."""
    data = read_yaml(path)
    mode = _one(data, "norm_default_mode", path)
    if mode is not None and mode not in NORMALISATIONS and constant_range(mode) is None:
        raise CheckpointError(f"{path}: norm_default_mode: {unknown_name('mode', str(mode), NORMALISATIONS)}")
    frames = _one(data, "num_frames", path)
    delta = _one(data, "delta_action_dim_mask", path)
    alpha = _one(data, "lora_alpha", path)
    return OfficialFacts(
        normalisation=None if mode is None else NORMALISATIONS.get(mode, mode),
        horizon=None if frames is None else int(frames) - 1,
        text_length=_one(data, "context_len", path),
        pack_after_text=_one(data, "pack_proprio_after_text", path),
        raw_action_dim=_raw_action_dim(data),
        lora_alpha=None if alpha is None else float(alpha),
        relative=_any_true(delta),
    )


def padded_dims(action_dim: int, facts: OfficialFacts, path: Path) -> tuple[int, ...]:
    """Dims that are padding. Only a configuration that names 14 joints makes 16 dims padded; 16 raw dims are
    end-effector poses and stay. Raises CheckpointError where that is not said.
    """
    if action_dim != 16 or facts.raw_action_dim == 16:
        return ()
    if facts.raw_action_dim == 14:
        return PADDED_16
    raise CheckpointError(
        f"{path} does not say whether the 16 action dims are 14 padded joints or two end-effector poses "
        f"(shape_meta.action gives {facts.raw_action_dim}); say it with --raw-action-dim 14 or 16"
    )


def read_statistics(path: Path, embodiment: str | None, drop: tuple[int, ...]) -> dict[str, Statistics]:
    """Statistics of state and action, padded dims left out. Raises CheckpointError."""
    data = _read_json(path)
    if data.get("type") == "per_embodiment":
        known = data.get("embodiments", {})
        if embodiment is None:
            raise CheckpointError(
                f"{path} has statistics per embodiment ({', '.join(known)}); choose with --embodiment"
            )
        if embodiment not in known:
            raise CheckpointError(f"{path}: {unknown_name('embodiment', embodiment, known)}")
        data = known[embodiment]
    return {name: _statistics(data, name, path, drop) for name in ("state", "action")}


def _statistics(data: Mapping[str, Any], name: str, path: Path, drop: tuple[int, ...]) -> Statistics:
    groups = data.get(name)
    if not isinstance(groups, Mapping) or len(groups) != 1:
        found = sorted(groups) if isinstance(groups, Mapping) else groups
        raise CheckpointError(f"{path}: {name} needs one field such as 'default', found {found}")
    values = next(iter(groups.values()))
    missing = [key for key in FIELDS.values() if key not in values]
    if missing:
        raise CheckpointError(f"{path}: {name} lacks {', '.join(missing)}; compute the statistics again")
    arrays = {ours: np.asarray(values[theirs], dtype=float) for ours, theirs in FIELDS.items()}
    padded = drop and len(arrays["mean"]) == 16
    return Statistics(**{key: np.delete(array, drop) if padded else array for key, array in arrays.items()})


def _one(data: Mapping[str, Any], key: str, path: Path) -> Any:
    """The only value of a key anywhere in the file, None when absent."""
    values: list[Any] = []
    for value in _found(data, key):
        if value is not None and value not in values:
            values.append(value)
    if len(values) > 1:
        raise CheckpointError(f"{path}: {key} says {' and '.join(map(repr, values))}; keep one of them")
    return values[0] if values else None


def _found(node: Any, key: str) -> Iterator[Any]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == key:
                yield value
            yield from _found(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _found(value, key)


def _raw_action_dim(data: Mapping[str, Any]) -> int | None:
    """Sum of the raw action dims in shape_meta."""
    for meta in _found(data, "shape_meta"):
        actions = meta.get("action") if isinstance(meta, Mapping) else None
        if isinstance(actions, list) and actions:
            return sum(int(item.get("raw_shape", item.get("shape", 0))) for item in actions)
    return None


def _any_true(mask: Any) -> bool | None:
    if mask is None:
        return None
    values = mask.values() if isinstance(mask, Mapping) else [mask]
    return any(any(item) if isinstance(item, list) else bool(item) for item in values)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {path}; it belongs beside model.pt") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds {type(data).__name__}, expected an object")
    return data
