# SPDX-License-Identifier: Apache-2.0
import argparse
import json
from pathlib import Path

import pytest

from imagewam_ros import bench_executor
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import share_dir


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_executor.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def slow_robot(tmp_path: Path) -> str:
    """The cell's robot at a quarter of its rate, which is a quarter of the work."""
    path = tmp_path / "sim_cell.yaml"
    text = (share_dir() / "config" / "robots" / path.name).read_text(encoding="utf8")
    assert "\ncontrol_rate_hz: 200\n" in text
    path.write_text(text.replace("\ncontrol_rate_hz: 200\n", "\ncontrol_rate_hz: 50\n"), encoding="utf8")
    return str(path)


def test_a_person_sees_every_way_and_a_program_the_last_line(
    slow_robot: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_executor.run(parsed("--robot", slow_robot, "--ticks", "300", "--seed", "3")) == 0
    shown = capsys.readouterr().out
    for name in ("executor", "linear_on_arrival", "cubic_by_stamp", "linear_by_stamp", "late-moving chunks"):
        assert name in shown
    result = json.loads(shown.strip().splitlines()[-1])
    assert result["robot"] == "sim_cell"
    assert result["ticks"] >= 300
    assert result["violations"] == result["starved_ticks"] == result["unstoppable"] == 0
    assert result["velocity_jump"] <= 1e-6
    assert result["tracking_ratio_100ms"] <= 0.5
    assert result["tracking_ratio_200ms"] <= 0.5
    assert 0.94 <= result["travel_ratio"] <= 1.02


def test_an_unknown_robot_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown robot 'sim_cel'; did you mean 'sim_cell'"):
        bench_executor.run(parsed("--robot", "sim_cel"))


@pytest.mark.parametrize(("option", "value"), [("--ticks", "0"), ("--seed", "-1")])
def test_a_campaign_of_nothing_passes_nothing(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--ticks must be positive and --seed not negative, found .*{value}"):
        bench_executor.run(parsed(option, value))


def test_the_plot_is_made_and_nothing_else(slow_robot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "images" / "late_motion.png"
    assert bench_executor.run(parsed("--robot", slow_robot, "--plot", str(picture))) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() == str(picture)
