# SPDX-License-Identifier: Apache-2.0
"""Evaluation: intervals, conditions, seeds, and trials on the real cell and executor."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from policy_server import PolicyServerFake, stand_still

from imagewam_ros import evaluate
from imagewam_ros.cli import main
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import CheckpointError, ConfigError, GraphError, RemoteError
from imagewam_ros.core.schema import ActionChunk, Source
from imagewam_ros.evaluation.drivers import (
    CONDITIONS,
    OneArmDriver,
    ReplayDriver,
    make_driver,
    mean_demonstration,
    wrong_instruction,
)
from imagewam_ros.evaluation.interval import paired_interval, paired_p_value, wilson
from imagewam_ros.evaluation.report import film_failures, write_report
from imagewam_ros.evaluation.trial import Outcome, TrialConfig, run_trial
from imagewam_ros.evaluation.workers import Setting
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.expert import Expert


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    made = Cell(load_embodiment("sim_cell"))
    yield made
    made.close()


class BothArms:
    """The whole expert, through the same executor as a policy."""

    def start(self, cell: Cell, seed: int) -> None:
        self._expert = Expert(cell)
        self._expert.start()

    def chunk(self, cell: Cell) -> ActionChunk:
        return self._expert.chunk()


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(50, 50, 0.9287, 1.0), (47, 50, 0.8378, 0.9794), (0, 40, 0.0, 0.0876), (5, 10, 0.2366, 0.7634)],
)
def test_wilson_equals_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_wilson_needs_trials() -> None:
    with pytest.raises(ValueError, match="found 1 of 0"):
        wilson(1, 0)


def test_paired_test_counts_what_differs() -> None:
    assert paired_p_value(0, 0) == 1.0
    assert paired_p_value(5, 5) == 1.0
    assert paired_p_value(0, 6) == pytest.approx(2 / 2**6)


@pytest.mark.parametrize(
    ("counts", "low", "high"), [((36, 12, 2, 0), 0.0569, 0.3404), ((20, 12, 2, 16), 0.0562, 0.3292)]
)
def test_paired_interval_equals_published_values(counts, low, high) -> None:
    assert paired_interval(*counts) == pytest.approx((low, high), abs=1e-4)  # Newcombe 1998, table II, method 10


def test_expert_succeeds_through_the_executor_within_limits(cell: Cell) -> None:
    outcome = run_trial(cell, BothArms(), "normal", 1000, TrialConfig())
    assert outcome.success and outcome.refused == 0 and outcome.violations == 0
    assert outcome.chunks >= 6 and 2 < outcome.duration_s < cell.task.time_limit_s


def test_one_arm_and_the_mean_demonstration_fail(cell: Cell) -> None:
    mean = mean_demonstration(cell, range(1_000_000, 1_000_008))
    drivers = {"left_only": OneArmDriver("left"), "right_only": OneArmDriver("right"), "blind": ReplayDriver(mean)}
    for condition, driver in drivers.items():
        outcomes = [run_trial(cell, driver, condition, seed, TrialConfig()) for seed in (1000, 1001)]
        assert not any(outcome.success for outcome in outcomes), condition
        assert all(outcome.chunks for outcome in outcomes), condition


def test_a_trial_repeats_to_the_bit(cell: Cell) -> None:
    first, second = (run_trial(cell, BothArms(), "normal", 1003, TrialConfig()) for _ in range(2))
    assert first == second


def test_a_server_is_evaluated_on_the_same_seeds() -> None:
    stay = stand_still(rows=16)
    with PolicyServerFake(stay, {"contract_hash": "cafe"}) as server:
        words = ["--policy", server.address, "--episodes", "2", "--condition", "normal", "--workers", "1"]
        line, outcomes = evaluate.evaluate_task(parse(*words), "tray_lift", range(1000, 1002))
    assert line["policy"] == server.address and line["successes"] == 0
    assert line["checkpoint"] == "cafe" and line["server"] == {"contract_hash": "cafe"}
    assert [outcome.seed for outcome in outcomes["normal"]] == [1000, 1001]
    assert all(outcome.refused == 0 and outcome.chunks > 10 for outcome in outcomes["normal"])
    assert {seen["prompt"] for seen in server.seen} == {"lift the tray with both hands"}


@pytest.mark.parametrize("words", [("--condition", "normal", "grey"), ("--against", "tiny")])
def test_what_the_graph_cannot_play_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="the ROS graph plays one policy under normal conditions"):
        evaluate.run(parse("--policy", "tiny", "--mode", "graph", *words))
    evaluate.check_mode(parse("--policy", "tiny", "--mode", "graph", "--condition", "normal"))
    evaluate.check_mode(parse("--policy", "tiny", "--mode", "graph"))


def test_a_server_is_not_for_the_graph() -> None:
    with pytest.raises(ConfigError, match="the ROS graph runs checkpoints, not servers"):
        evaluate.run(parse("--policy", "ws://127.0.0.1:1", "--mode", "graph"))


def test_a_server_that_is_not_there_ends_the_evaluation_at_once() -> None:
    with pytest.raises(RemoteError, match="no policy server at ws://127.0.0.1:1: .* is it running"):
        evaluate.run(parse("--policy", "ws://127.0.0.1:1", "--episodes", "1"))


def test_judged_trials_need_a_folder() -> None:
    with pytest.raises(ConfigError, match="say where trials, pictures and report go: --out FOLDER"):
        evaluate.run(parse("--real", "--instruction", "wave"))


def test_judged_trials_are_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trials must be positive and timeout_s 0 to 3600, found 0"):
        evaluate.run(parse("--real", "--instruction", "wave", "--out", str(tmp_path), "--episodes", "0"))


def test_two_policies_meet_in_pairs(tiny: Path, tmp_path: Path) -> None:
    with PolicyServerFake(stand_still(rows=16)) as server:
        words = ["--policy", str(tiny), "--against", server.address, "--episodes", "2", "--workers", "1"]
        words += ["--condition", "left_only", "--out", str(tmp_path), "--videos", "0"]
        evaluate.run(parse(*words))
    (line,) = json.loads((tmp_path / "report.json").read_text())["tasks"]
    assert list(line["rows"]) == ["normal", "left_only", "against"]
    found = line["paired"]
    assert found["against"] == server.address and found["only_second"] == found["both"] == 0
    assert found["only_first"] + found["neither"] == 2
    assert "on the same seeds: only the first succeeded" in (tmp_path / "report.html").read_text()


def test_longer_latency_means_fewer_chunks(cell: Cell) -> None:
    quick, slow = (run_trial(cell, BothArms(), "normal", 1000, TrialConfig(latency, 1)) for latency in (0.02, 0.3))
    assert slow.chunks < quick.chunks


def test_replay_stays_at_its_end(cell: Cell) -> None:
    cell.reset(1)
    targets = np.linspace(0, 1, 3)[:, None] * np.ones(14)
    chunk = ReplayDriver(targets).chunk(cell)
    assert chunk.positions[:, 0].tolist() == [0.0, 0.5, *[1.0] * 14] and chunk.source is Source.REPLAY


def test_conditions_and_modes_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown condition 'gray'; did you mean 'grey'"):
        make_driver("gray", None)
    with pytest.raises(ConfigError, match="unknown mode 'grpah'; did you mean 'graph'"):
        evaluate.run(parse("--mode", "grpah"))
    with pytest.raises(ConfigError, match="unknown task 'tray_lit'; did you mean 'tray_lift'"):
        evaluate.run(parse("--task", "hand_over", "tray_lit"))
    with pytest.raises(ConfigError, match="latency_s is 0 to 0.5"):
        TrialConfig(latency_s=2)
    assert set(CONDITIONS) >= {"normal", "grey", "frozen", "blind", "left_only", "right_only"}


@pytest.mark.parametrize("first", [999_990, 1_000_000, -1])
def test_seeds_of_demonstrations_are_refused(first: int) -> None:
    with pytest.raises(ConfigError, match="those from there up are for demonstrations"):
        evaluate.checked_seeds(first, 50)


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config.json in .*; is it a checkpoint directory"):
        evaluate.run(parse("--policy", str(tmp_path)))


def outcome(seed: int, success: bool) -> Outcome:
    return Outcome("normal", seed, success, 3.0, 30, 0, 0, 0)


def test_summary_and_comparison() -> None:
    first = [outcome(seed, seed != 3) for seed in range(8)]
    second = [outcome(seed, False) for seed in range(8)]
    row = evaluate.summary(first)
    assert (row["episodes"], row["successes"], row["failed_seeds"]) == (8, 7, [3])
    found = evaluate.compare(first, second)
    assert (found["only_first"], found["only_second"], found["both"], found["neither"]) == (7, 0, 0, 1)
    assert found["p"] == pytest.approx(2 / 2**7, abs=1e-4) and found["difference"] == 0.875
    assert 0 < found["interval"][0] < 0.875 < found["interval"][1] <= 1
    assert "7/8" in evaluate.table({"normal": row})


def test_command_prints_one_line_last(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--episodes", "1", "--condition", "normal", "left_only", "--workers", "1", "--json"]
    assert main([*words, "--policy", str(tiny)]) in (0, 1)
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert last["episodes"] == 1 and len(last["interval"]) == 2 and last["seed"] == 1000
    assert last["task"] == "tray_lift" and last["mode"] == "process" and len(last["checkpoint"]) == 16
    assert set(last["rows"]) == {"normal", "left_only"}


def test_every_task_has_a_line_with_a_row_per_condition(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--episodes", "1", "--condition", "wrong_instruction", "grey", "--workers", "1", "--json"]
    words += ["--task", "tray_lift", "block_lift", "--policy", str(tiny), "--out", str(tmp_path), "--videos", "0"]
    assert main(words) in (0, 1)
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()[-2:]]
    assert [line["task"] for line in lines] == ["tray_lift", "block_lift"]
    assert all(list(line["rows"]) == ["wrong_instruction", "grey"] for line in lines)
    text = (tmp_path / "report.html").read_text()
    assert "<h2>Task tray_lift</h2>" in text and "<h2>Task block_lift</h2>" in text


def test_report_holds_every_trial_and_escapes(tmp_path: Path) -> None:
    outcomes = {"normal": [outcome(seed, seed != 3) for seed in range(8)]}
    rows = {"normal": evaluate.summary(outcomes["normal"])}
    line = {"task": "<tray>", "episodes": 8, "rows": rows}
    films = {"<tray>": [tmp_path / "failure_3.mp4"]}
    page = write_report(tmp_path, [line], {"<tray>": outcomes}, films, {"machine": "here"})
    assert "&lt;tray&gt;" in page.read_text() and "failure_3.mp4" in page.read_text() and "7/8" in page.read_text()
    data = json.loads((tmp_path / "report.json").read_text())
    assert [trial["success"] for trial in data["trials"]] == [seed != 3 for seed in range(8)]


def test_failures_are_filmed_as_they_happened(tiny: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    (path,) = film_failures(Setting(str(tiny), "tray_lift", "sim_cell", TrialConfig()), [1000], tmp_path)
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert 20 < frames <= 6.0 * 20
    assert torch.get_num_threads() == 1, "as in the trials: the order of sums depends on it"


def test_wrong_instruction_is_another_one(cell: Cell) -> None:
    cell.reset(1)
    wrong = {wrong_instruction(cell, seed) for seed in range(4)}
    assert wrong and cell.instruction not in wrong
    blocks = Cell(load_embodiment("sim_cell"), "block_lift")
    blocks.reset(1)
    assert {wrong_instruction(blocks, seed) for seed in range(4)} == {*blocks.task.instructions} - {blocks.instruction}


def test_graph_that_does_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"the graph ended with \d; `imagewam demo --seed 1000` shows why"):
        evaluate.play_graph(tmp_path, parse("--robot", "no_such_robot", "--seed", "1000"), "tray_lift", 1)


@pytest.fixture
def tiny() -> Path:
    folder = Path(__file__).resolve().parents[1] / "models" / "tiny"
    if not (folder / "config.json").exists():
        pytest.skip("models/tiny is not there")
    return folder
