# SPDX-License-Identifier: Apache-2.0
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from imagewam_ros.cli import COMMANDS, INTERRUPTED, main


def imagewam(*words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "imagewam_ros", *words], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"imagewam {name}" in text.split("example:")[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_each_command_is_accepted(name: str) -> None:
    from imagewam_ros.cli import parse

    words = COMMANDS[name].example.split()
    assert words[:2] == ["imagewam", name]
    assert parse(words[1:]).run is importlib.import_module(COMMANDS[name].module).run


def test_help_names_every_command_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from imagewam_ros.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print([m for m in ('torch', 'rclpy', 'numpy', 'mujoco') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["demmo"], "did you mean demo?"),
        (["up", "--polcy", "x"], "unrecognized arguments: --polcy; did you mean --policy?"),
        (["up", "--log-level", "wrn"], "did you mean warn?"),
        ([], "required: command"),
    ],
)
def test_what_is_misspelt_is_answered_with_the_nearest(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert text in capsys.readouterr().err


def test_a_mistake_of_the_user_is_one_line_and_code_2() -> None:
    done = imagewam("up", "robt:=x")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [line for line in done.stderr.splitlines() if "did you mean 'robot'?" in line]


def test_up_says_how_an_assignment_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "robot=mine"]) == 2
    assert "expected name:=value, found 'robot=mine'; try `imagewam up --help`" in capsys.readouterr().err


def test_ctrl_c_has_its_own_code() -> None:
    assert INTERRUPTED == 130
