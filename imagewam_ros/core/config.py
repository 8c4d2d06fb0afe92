# SPDX-License-Identifier: Apache-2.0
"""Load typed configurations from YAML mappings. The dataclasses live where they are used."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from imagewam_ros.core.errors import ConfigError, unknown_name

T = TypeVar("T")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader. Raises ConfigError."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise ConfigError(f"no such file: {path}; check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}, expected a mapping of keys to values")
    return data


def build(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    """Build dataclass `cls` from a mapping, nested dataclasses and tuples of them included.

    `where` names the origin in messages. Raises ConfigError on unknown or missing keys and on
    values that the dataclass refuses.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ConfigError(f"{where}: {unknown_name('key', str(key), fields)}")
    missing = [n for n, f in fields.items() if n not in data and _required(f)]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}; add {'it' if len(missing) == 1 else 'them'}")
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in data.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Turn YAML's value into what the annotation asks for; leave what is right as it is."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected keys and values, found {value!r}")
        return build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, found {value!r}")
        item = args if args and args[-1] is not Ellipsis else (args[0],) * len(value)
        if len(item) != len(value):
            raise ConfigError(f"{where}: expected {len(item)} values, found {len(value)}")
        return tuple(_convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(item, value, strict=True)))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and origin is None and not (isinstance(value, hint) and not _bool_as_int(hint, value)):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value


def _bool_as_int(hint: type, value: Any) -> bool:
    return hint is not bool and isinstance(value, bool)
