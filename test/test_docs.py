# SPDX-License-Identifier: Apache-2.0
"""Commands, links and files that the pages name exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from imagewam_ros import cli, up
from imagewam_ros.core.paths import share_dir
from imagewam_ros.graph import settings
from imagewam_ros.packages import require_launch

ROOT = share_dir()
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])
LAUNCH = "ros2 launch imagewam_ros dual_arm.launch.py"


NEEDED = re.compile(r"\*[^*]*(?:[Nn]eeds|not run)[^*]*\*")
"""How a section marks what needs hardware, or programs that are not here."""

SHELL = {"cd", "chmod", "export", "git", "mkdir", "touch"}
NOT_HERE = {"colcon", "docker", "ros2", "rosdep", "source", "sudo", "."}
PROGRAMS = {"accelerate", "imagewam", "make", "pip", "python", "python3", *SHELL, *NOT_HERE}
VARIABLES = {"ROS_DOMAIN_ID", "ROS_SECURITY_KEYSTORE", "ROS_SECURITY_ENABLE", "ROS_SECURITY_STRATEGY"}
"""Of ROS 2 itself; others that the pages export are named in the code."""


class Line(NamedTuple):
    """One line of a fenced or indented block, and whether its section says that something is needed."""

    page: str
    text: str
    marked: bool


def block_lines() -> Iterator[Line]:
    for page in PAGES:
        for section in re.split(r"(?m)^(?=#+ )", page.read_text(encoding="utf8")):
            fenced, marked = False, bool(NEEDED.search(section))
            for line in re.sub(r"\\\n\s*", "", section).splitlines():  # a backslash continues a line
                if line.startswith("```"):
                    fenced = not fenced
                elif fenced or line.startswith("    "):
                    yield Line(page.name, line.strip().removeprefix("$ "), marked)


def commands(start: str) -> list[tuple[str, str]]:
    pattern = re.compile(rf"^(?:\.venv/bin/)?({re.escape(start)}(?: .*)?)$")
    return [(line.page, found.group(1)) for line in block_lines() if (found := pattern.match(line.text))]


def steps() -> list[tuple[Line, list[str]]]:
    """Every command that a page shows beside `imagewam` and our launch, as words without what it sets before."""
    found = []
    for line in block_lines():
        for text in line.text.split(" && "):
            if text.startswith(LAUNCH) or "│" in text or "─" in text:
                continue
            plain = text.replace("<this repository>", "REPOSITORY")
            try:
                words = shlex.split(plain, comments=True)
            except ValueError:  # an apostrophe in a formula
                continue
            words = words[next((i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), 0) :]
            if words and Path(words[0]).name in PROGRAMS - {"imagewam"}:
                found.append((line, words))
    return found


@pytest.mark.parametrize(
    ("line", "words"), steps(), ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else value.page
)
def test_every_other_command_is_run_by_a_test_checked_here_or_marked(line: Line, words: list[str]) -> None:
    """`make demo` and `make test` are what tests and set-up run; of the others, what they name exists."""
    program = Path(words[0]).name
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    elif program in ("python", "python3", "pip"):
        files = [word for word in words[1:] if word.endswith((".py", ".txt"))]
        assert files or "venv" in words or "lerobot" in words[-1]
        for file in files:
            assert (ROOT / file.removeprefix("src/imagewam_ros/")).exists(), f"{line.page}: {file}"
    elif program == "accelerate":
        start = words.index("imagewam_ros")
        cli.parse(words[start + 1 :])
    elif program == "export":
        code = "".join(path.read_text(encoding="utf8") for path in (ROOT / "imagewam_ros").rglob("*.py"))
        for word in words[1:]:
            assert word.partition("=")[0] in VARIABLES or word.partition("=")[0] in code, f"{line.page}: {word}"
    else:
        assert program in SHELL or line.marked, (
            f"{line.page}: {line.text} is neither tested nor marked as needing something"
        )


def test_a_command_without_a_mark_would_be_seen() -> None:
    assert not NEEDED.search("Build it: colcon build.")
    assert NEEDED.search("*Needs ROS 2; the colcon build was not run for this page.*")
    assert len(steps()) > 15


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
