# SPDX-License-Identifier: Apache-2.0
"""A site's file of ROS parameters, in full names, so that it reaches the nodes of a cell in any namespace.

ROS takes a plain `executor:` for /executor alone and passes over it in silence elsewhere: a speed cap would be gone.
Here a plain name is the cell's own node wherever the cell is, and a name that no node of the cell has is refused.
Names in full and wildcards mean what they mean to ROS.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from imagewam_ros.core.errors import ConfigError, GraphError, unknown_name
from imagewam_ros.graph import PROCESSES

SECTION = "ros__parameters"
NODES = tuple(dict.fromkeys(process.name for process in PROCESSES))
Parameters = dict[str, Any]
"""Values by dotted name."""


def site_parameters(path: str, namespace: str) -> dict[str, Parameters]:
    """Return what a file sets on each node that a cell can have, by the node's full name; "" is no file.

    A name in full outranks a wildcard. Nodes that do not run this time may be named too. Raises GraphError for a
    missing file and for names of no node, ConfigError for a file that is none of parameters.
    """
    home = "/" + namespace.strip("/") if namespace.strip("/") else ""
    found: dict[str, Parameters] = {f"{home}/{node}": {} for node in NODES}
    named: dict[str, Parameters] = {name: {} for name in found}
    for key, values in _sections(path):
        pattern = _pattern(key, home)
        meant = [name for name in found if pattern.fullmatch(name)]
        if not meant:
            raise GraphError(f"{path} sets parameters of {key!r}, and the cell has no such node; {_remedy(key, home)}")
        for name in meant:
            (named if "*" not in key else found)[name].update(values)
    return {name: values | named[name] for name, values in found.items()}


def executor_output(path: str, namespace: str) -> str:
    """Return the executor's output that a file sets, by default forward: which controllers of the arms must run."""
    (executor,) = (values for name, values in site_parameters(path, namespace).items() if name.endswith("/executor"))
    return str(executor.get("output", "forward"))


def write_site_parameters(path: str, namespace: str, folder: Path) -> Path:
    """Write what `site_parameters` returns into `folder`, for --params-file, and return where it is."""
    file = folder / "site_parameters.yaml"
    named = {name: {SECTION: values} for name, values in site_parameters(path, namespace).items()}
    file.write_text(yaml.safe_dump(named, sort_keys=False), encoding="utf8")
    return file


def _sections(path: str) -> Iterator[tuple[str, Parameters]]:
    """Node names as they are written, nested ones joined, with their parameters."""

    def walk(name: str, inside: Any) -> Iterator[tuple[str, Parameters]]:
        if inside is not None and not isinstance(inside, Mapping):
            raise ConfigError(
                f"{path}: {name} holds {inside!r}; write the node's name, below it {SECTION}, and the parameters below "
                "that, as in config/parameters.yaml"
            )
        for key, value in (inside or {}).items():
            if key == SECTION and isinstance(value, Mapping | None):
                yield name, _flat(value or {})
            else:
                yield from walk(f"{name}/{key}" if name else str(key), value)

    yield from walk("", _read(Path(path)) if path else None)


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf8"), _Loader)
    except (FileNotFoundError, IsADirectoryError):
        raise GraphError(f"no file of parameters at {path}; check the path, or copy config/parameters.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as ROS does; refuses a key that is there twice, whose first values would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping. Raises ConstructorError."""
        keys = [key.value for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Parameters:
    """Nested groups as dotted names."""
    flat: Parameters = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _pattern(key: str, home: str) -> "re.Pattern[str]":
    """Expression for the full names that a written name means; * stands for one part, ** for any number."""
    plain = "/" not in key and "*" not in key
    parts = (f"{home}/{key}" if plain else key).strip("/").split("/")
    known = {"**": "(/[^/]+)*", "*": "/[^/]+"}
    return re.compile("".join(known.get(part, "/" + re.escape(part)) for part in parts))


def _remedy(key: str, home: str) -> str:
    node = key.rstrip("/").rpartition("/")[2]
    if node in NODES:
        return f"write {node}, or its full name {home}/{node}"
    return unknown_name("node", node, NODES)
