# SPDX-License-Identifier: Apache-2.0
"""Commands, links and files that the pages name exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagewam_ros import cli, up
from imagewam_ros.core.paths import share_dir
from imagewam_ros.graph import require_launch, settings

ROOT = share_dir()
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])
LAUNCH = "ros2 launch imagewam_ros dual_arm.launch.py"


def block_lines() -> Iterator[tuple[str, str]]:
    """Name of the page and line, for lines of fenced or indented blocks."""
    for page in PAGES:
        fenced = False
        for line in page.read_text(encoding="utf8").splitlines():
            if line.startswith("```"):
                fenced = not fenced
            elif fenced or line.startswith("    "):
                yield page.name, line.strip()


def commands(start: str) -> list[tuple[str, str]]:
    pattern = re.compile(rf"^(?:\.venv/bin/)?({re.escape(start)}(?: .*)?)$")
    return [(name, found.group(1)) for name, line in block_lines() if (found := pattern.match(line))]


@pytest.mark.parametrize(("page", "line"), commands("imagewam"))
def test_commands_of_the_pages_parse(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    try:
        arguments = cli.parse(words)
    except SystemExit as end:
        pytest.fail(f"{page}: {line}: exit code {end.code}")
    if words[0] == "up":
        require_launch(settings(up.chosen(arguments)))


@pytest.mark.parametrize(("page", "line"), commands(LAUNCH))
def test_launch_arguments_of_the_pages_exist(page: str, line: str) -> None:
    words = shlex.split(line.removeprefix(LAUNCH), comments=True)
    settings(dict(word.split(":=", 1) for word in words if word != "--show-args"))


def test_the_pages_show_commands() -> None:
    assert len(commands("imagewam")) > 15
    assert len(commands(LAUNCH)) > 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_named_in_the_tutorials_exist() -> None:
    folders = "config|urdf|fastdds|requirements|gazebo|isaac|launch"
    for name in ("install", "bring_up_your_robot", "troubleshooting", "security", "safety"):
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf8")
        for path in re.findall(rf"(?<![\w/])((?:{folders})/[\w/.]*\w)", text):
            assert (ROOT / path).exists(), f"{name}.md: {path}"
