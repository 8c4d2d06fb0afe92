# SPDX-License-Identifier: Apache-2.0
"""Typed configurations: round trips, and every mistake named."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from imagewam_ros.core.config import build, read_yaml
from imagewam_ros.core.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    width_m: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner
    pair: tuple[int, float] = (1, 2.0)
    limit: float | None = None
    enabled: bool = True

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise ConfigError(f"limit must not be negative, found {self.limit}")


def test_builds_nested_values_and_keeps_defaults() -> None:
    outer = build(Outer, {"inner": {"width_m": 1, "names": ["a", "b"]}, "pair": [3, 4]}, "here")
    assert outer == Outer(Inner(1.0, ("a", "b")), (3, 4.0))
    assert isinstance(outer.inner.width_m, float)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"inner": {"width_m": 1}, "limt": 2}, "here: unknown key 'limt'; did you mean 'limit'"),
        ({}, "here: missing inner; add it"),
        ({"inner": {}}, "here: inner: missing width_m"),
        ({"inner": 3}, "here: inner: expected keys and values, found 3"),
        ({"inner": {"width_m": "wide"}}, "here: inner: width_m: expected float, found 'wide'"),
        ({"inner": {"width_m": True}}, "expected float, found True"),
        ({"inner": {"width_m": 1, "names": "ab"}}, "names: expected a list, found 'ab'"),
        ({"inner": {"width_m": 1}, "pair": [1]}, "pair: expected 2 values, found 1"),
        ({"inner": {"width_m": 1}, "enabled": 1}, "enabled: expected bool, found 1"),
        ({"inner": {"width_m": 1}, "limit": -1}, "here: limit must not be negative, found -1"),
    ],
)
def test_names_the_mistake(data: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match="(?s).*") as raised:
        build(Outer, data, "here")
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [("a: [", "is not valid YAML"), ("- 1", "holds list, expected a mapping"), (None, "no such file")],
)
def test_read_yaml_says_what_is_wrong(tmp_path: Path, content: str | None, text: str) -> None:
    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=text):
        read_yaml(path)


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: !!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_yaml(path)
