# SPDX-License-Identifier: Apache-2.0
"""What an official checkpoint's config.yaml and dataset_stats.json say, and what they leave open.

The file is searched for the authors' keys wherever they lie; a key that says two things at
once is refused, references to other keys are passed over. Source: docs/model.md, section 6.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from imagewam_ros.core.config import read_yaml
from imagewam_ros.core.errors import CheckpointError, unknown_name
from imagewam_ros.core.schema import Floats
from imagewam_ros.core.stats import Statistics, constant_range

Read = TypeVar("Read")

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

PADDING = "RobotWin14ToCanonicalEE16"
"""The authors' transform that pads; the only one that their configurations use."""

SECOND_ARM = tuple(range(8, 16))
"""Numbers of the arm that a one-armed embodiment lacks among InternData's 16: zero and masked."""


@dataclass(frozen=True)
class OfficialFacts:
    """What config.yaml says; None where it does not.

    deltas marks action numbers that are steps from row to row. arms names, per embodiment, the arms that it
    has; they are given as tool poses. layout and image_size say how cameras are tiled.
    """

    normalisation: str | None = None
    horizon: int | None = None
    text_length: int | None = None
    pack_after_text: bool | None = None
    raw_action_dim: int | None = None
    action_dim: int | None = None
    lora_alpha: float | None = None
    deltas: tuple[bool, ...] | None = None
    layout: str | None = None
    image_size: tuple[int, int] | None = None
    arms: Mapping[str, tuple[str, ...]] | None = None


def read_facts(path: Path) -> OfficialFacts:
    """Read config.yaml. Raises CheckpointError when a key says two things, or what this import does not do."""
    data = read_yaml(path)
    mode = _one(data, "norm_default_mode", path, str)
    if mode is not None and mode not in NORMALISATIONS and constant_range(mode) is None:
        raise CheckpointError(f"{path}: norm_default_mode: {unknown_name('mode', mode, NORMALISATIONS)}")
    _refuse_what_is_not_done(data, path)
    frames = _one(data, "num_frames", path, int)
    cached, plain = (_one(data, key, path, int) for key in ("qwen_context_len", "context_len"))
    size = _one(data, "video_size", path, _size)
    raw, shape = _action_dims(data, path)
    return OfficialFacts(
        normalisation=None if mode is None else NORMALISATIONS.get(mode, mode),
        horizon=None if frames is None else frames - 1,
        text_length=cached or plain,  # the features that these networks read come from Qwen's cache
        pack_after_text=_one(data, "pack_proprio_after_text", path),
        raw_action_dim=raw,
        action_dim=shape,
        lora_alpha=_one(data, "lora_alpha", path, float),
        deltas=_one(data, "delta_action_dim_mask", path, _deltas),
        layout=_layout(data, size, path),
        image_size=size,
        arms=_one(data, "hetero_bridge", path, _arms),
    )


def _refuse_what_is_not_done(data: Mapping[str, Any], path: Path) -> None:
    """Refuse settings that change what the numbers mean. The released configurations leave all of them out."""
    for key in ("use_stepwise_action_norm", "norm_exception_mode"):
        value = _one(data, key, path)
        if value:
            raise CheckpointError(f"{path}: {key} is {value!r}; this import takes one normalisation for all numbers")
    for value in _found(data, "action_state_transforms"):
        for item in value if isinstance(value, list) else []:
            name = str(item.get("_target_", item) if isinstance(item, Mapping) else item).rpartition(".")[2]
            if name != PADDING:
                raise CheckpointError(
                    f"{path}: action_state_transforms has {name}, which decides what the actions mean; this import "
                    f"knows {PADDING} alone. Bring the actions to absolute ones and train again, or ask for it"
                )
    for key in ("action_target_dim", "state_target_dim"):
        if _one(data, key, path) is not None:
            raise CheckpointError(f"{path}: {key} pads vectors at their end; this import knows {PADDING} alone")


def padded_dims(action_dim: int, facts: OfficialFacts, path: Path, embodiment: str | None = None) -> tuple[int, ...]:
    """Dims that are padding. Only a configuration that names 14 joints behind 16 numbers makes two of them padded;
    16 raw dims are end-effector poses and stay, but for the arm that the embodiment lacks. Raises CheckpointError
    where that is not said.
    """
    if action_dim != 16 or facts.raw_action_dim == 16:
        return SECOND_ARM if action_dim == 16 and len(arms_of(facts, embodiment, path)) == 1 else ()
    if facts.raw_action_dim == 14 and facts.action_dim in (16, None):
        return PADDED_16
    raise CheckpointError(
        f"{path} does not say whether the 16 action dims are 14 padded joints or two end-effector poses "
        f"(shape_meta.action gives {facts.raw_action_dim} before and {facts.action_dim} after its transforms); "
        "say it with --raw-action-dim 14 or 16"
    )


def arms_of(facts: OfficialFacts, embodiment: str | None, path: Path) -> tuple[str, ...]:
    """Arms of an embodiment, both where the configuration names none. Raises CheckpointError for an unknown one."""
    if facts.arms is None or embodiment is None:
        return ("left", "right")
    if embodiment not in facts.arms:
        raise CheckpointError(f"{path}: hetero_bridge: {unknown_name('embodiment', embodiment, facts.arms)}")
    return facts.arms[embodiment]


def only_embodiment(path: Path) -> str | None:
    """Name of the embodiment whose statistics are the only ones; None where there are several, or they have no name."""
    data = _read_json(path)
    known = data.get("embodiments", {}) if data.get("type") == "per_embodiment" else {}
    return next(iter(known)) if len(known) == 1 else None


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
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{path}: {name} holds {values!r}, expected statistics; compute them again")
    missing = [key for key in FIELDS.values() if key not in values]
    if missing:
        raise CheckpointError(f"{path}: {name} lacks {', '.join(missing)}; compute the statistics again")
    arrays = {ours: _understood(_row, values[key], f"{name}: {key}", path) for ours, key in FIELDS.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        found = ", ".join(f"{FIELDS[key]} {len(array)}" for key, array in arrays.items())
        raise CheckpointError(f"{path}: {name} has rows of different lengths ({found}); compute the statistics again")
    padded = drop and len(arrays["mean"]) == 16
    return Statistics(**{key: np.delete(array, drop) if padded else array for key, array in arrays.items()})


def _row(values: Any) -> Floats:
    row = np.asarray(values, dtype=float)
    if row.ndim != 1 or not np.isfinite(row).all():
        raise ValueError("expected a row of finite numbers")
    return row


def _one(data: Mapping[str, Any], key: str, path: Path, read: Callable[[Any], Any] = lambda value: value) -> Any:
    """What `read` makes of the only value of a key anywhere in the file, None when absent."""
    values: list[Any] = []
    for value in _found(data, key):
        if value is not None and value not in values:
            values.append(value)
    if len(values) > 1:
        raise CheckpointError(f"{path}: {key} says {' and '.join(map(repr, values))}; keep one of them")
    return _understood(read, values[0], key, path) if values else None


def _understood(read: Callable[[Any], Read], value: Any, key: str, path: Path) -> Read:
    """What `read` makes of a value. Raises CheckpointError where it is of another kind."""
    try:
        return read(value)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: {key} is {value!r}, which is not understood ({error}); correct it") from None


def _found(node: Any, key: str) -> Iterator[Any]:
    """All values of a key; a reference to another key, ${...}, and an open place, ???, say nothing here."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == key and not (isinstance(value, str) and (value.startswith("${") or value == "???")):
                yield value
            yield from _found(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _found(value, key)


def _action_dims(data: Mapping[str, Any], path: Path) -> tuple[int | None, int | None]:
    """Numbers of an action before and after the transforms, from shape_meta. Raises CheckpointError."""
    metas = (meta for meta in _found(data, "shape_meta") if isinstance(meta, Mapping) and meta.get("action"))
    found = {_understood(_dims, meta["action"], "shape_meta.action", path) for meta in metas}
    if len(found) > 1:
        raise CheckpointError(f"{path}: shape_meta.action says {' and '.join(map(str, found))}; keep one of them")
    return found.pop() if found else (None, None)


def _dims(actions: list[Any]) -> tuple[int, int]:
    """Numbers of all fields of an action, before and after."""
    after = [int(item.get("shape", item.get("raw_shape", 0))) for item in actions]
    return sum(int(item.get("raw_shape", size)) for item, size in zip(actions, after, strict=True)), sum(after)


def _size(value: Any) -> tuple[int, int]:
    height, width = map(int, value)
    return height, width


def _deltas(mask: Any) -> tuple[bool, ...] | None:
    """Numbers that are steps, over all fields; None where none is."""
    fields = mask.values() if isinstance(mask, Mapping) else [mask]
    flat = tuple(bool(item) for field in fields if field for item in (field if isinstance(field, list) else [field]))
    return flat if any(flat) else None


def _layout(data: Mapping[str, Any], size: Any, path: Path) -> str | None:
    """Our name of the camera tiling."""
    tiling = _one(data, "concat_multi_camera", path)
    if tiling == "robotwin":
        name = _one(data, "robotwin_camera_layout", path)
        return None if name is None else str(name)
    return "libero_224x448" if tiling == "horizontal" and size == (224, 448) else None


def _arms(bridge: Any) -> dict[str, tuple[str, ...]] | None:
    """Arms per embodiment whose actions are tool poses."""
    if not isinstance(bridge, Mapping) or not bridge.get("enabled"):
        return None
    return {
        name: tuple(side for side in ("left", "right") if (about.get("action") or {}).get(f"{side}_pose"))
        for name, about in (bridge.get("embodiments") or {}).items()
    }


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
