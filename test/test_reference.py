# SPDX-License-Identifier: Apache-2.0
"""The committed reference pages say what the code says; `make reference` writes them."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch", reason="some commands import it to declare their options")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def maker() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "tools"))
    yield importlib.import_module("make_reference")
    sys.path.remove(str(ROOT / "tools"))


@pytest.mark.parametrize("name", ["commands.md", "interfaces.md", "api.md"])
def test_the_page_is_what_the_code_generates(maker: ModuleType, name: str) -> None:
    path = f"docs/reference/{name}"
    page = (ROOT / path).read_text(encoding="utf8")
    assert page.splitlines() == maker.still_pages()[path]().splitlines(), "run `make reference`"


def test_every_command_and_interface_has_its_section(maker: ModuleType) -> None:
    from imagewam_ros import cli

    commands = maker.commands()
    assert [name for name in cli.COMMANDS if f"## imagewam {name}\n" not in commands] == []
    files = [*ROOT.glob("msg/*.msg"), *ROOT.glob("srv/*.srv"), *ROOT.glob("action/*.action")]
    found = maker.interfaces()
    assert files and all(f"/{path.stem}\n" in found for path in files)


def test_a_stale_page_is_noticed_and_mended(maker: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "reference" / "page.md"
    assert not maker.up_to_date(page, "new", write=False)
    assert not page.exists()
    assert not maker.up_to_date(page, "new", write=True)
    assert maker.up_to_date(page, "new", write=False)


def test_signatures_are_read_from_the_source(maker: ModuleType, tmp_path: Path) -> None:
    file = maker.ROOT / "imagewam_ros" / "core" / "config.py"
    text = "\n".join(maker.module(file))
    assert "### `imagewam_ros.core.config`" in text
    assert "- `build(cls, data, where)`: " in text
    assert "_convert" not in text
