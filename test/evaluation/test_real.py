# SPDX-License-Identifier: Apache-2.0
"""Judged trials without a robot: their order, their book, the pictures and what is reported."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.evaluation.real import (
    Book,
    RealConfig,
    RealTrial,
    blend,
    difference,
    read_picture,
    result,
    schedule,
    write_picture,
)
from imagewam_ros.evaluation.report import write_report

OTHER = str(find_checkpoint("tiny"))


def config(out: Path, **changes: object) -> RealConfig:
    return dataclasses.replace(RealConfig(("tiny", OTHER), "put it <there>", out, trials=4, seed=5), **changes)


def trial(number: int, policy: int, label: str) -> RealTrial:
    return RealTrial(number, number // 2, policy, label, 3.0, 20, "ran for 30 s", "2026-11-20T12:00:00+00:00", 4.5)


@pytest.mark.parametrize("seed", range(5))
def test_every_block_holds_every_policy_once(seed: int) -> None:
    order = schedule(2, 50, seed)
    assert all(sorted(order[i : i + 2]) == [0, 1] for i in range(0, 100, 2))
    assert order == schedule(2, 50, seed) and order != schedule(2, 50, seed + 1)
    assert 10 < Counter(order[::2])[0] < 40, "neither is always first"


def test_a_stopped_session_goes_on_where_it_was(tmp_path: Path) -> None:
    book = Book(config(tmp_path))
    assert book.next == 0
    for number in range(3):
        book.write(trial(number, book.order[number], "success"))
    again = Book(config(tmp_path))
    assert again.next == 3 and again.trials == book.trials and again.order == book.order
    again.write(trial(3, 0, "failure"))
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"number": 4, "bl')  # the disk was full
    again = Book(config(tmp_path))
    assert again.next == 4
    for number in range(4, 8):
        again.write(trial(number, again.order[number], "failure"))
    assert again.next is None and Book(config(tmp_path)).trials == again.trials


def test_the_order_is_drawn_and_kept(tmp_path: Path) -> None:
    books = [Book(config(tmp_path / str(i), seed=None, trials=40)) for i in range(3)]
    assert len({tuple(book.order) for book in books}) == 3, "nobody knows it from an earlier session"
    assert Book(config(tmp_path / "0", seed=None, trials=40)).order == books[0].order
    assert result(books[0])["seed"] == books[0].config.seed


def test_another_session_does_not_mix_in(tmp_path: Path) -> None:
    Book(config(tmp_path))
    for changes in ({"seed": 6}, {"trials": 5}, {"policies": ("tiny",)}, {"instruction": "wave"}):
        with pytest.raises(ConfigError, match="session.json is of another session; choose another --out"):
            Book(config(tmp_path, **changes))


def test_the_report_counts_and_compares_blocks(tmp_path: Path) -> None:
    book = Book(config(tmp_path))
    for number in range(6):  # three whole blocks: the first policy always succeeds, the other once
        policy = book.order[number]
        book.write(trial(number, policy, "success" if policy == 0 or number < 2 else "failure"))
    book.write(trial(6, 0, "failure"))
    line = result(book)
    assert line["mode"] == "real" and len(line["checkpoint"]) == 16 and line["B"]["policy"] == OTHER
    assert (line["successes"], line["episodes"]) == (3, 4)
    assert line["rows"]["B"]["successes"] == 1 and line["rows"]["B"]["episodes"] == 3
    found = line["paired"]
    assert (found["both"], found["only_first"], found["only_second"]) == (1, 2, 0), "the torn block does not count"
    page = write_report(tmp_path, [line], {line["task"]: {"real": book.trials}}, {}, {"machine": "here"})
    text = page.read_text()
    assert "put it &lt;there&gt;" in text and "<td>3/4</td>" in text and "<td>1/3</td>" in text
    trials = json.loads((tmp_path / "report.json").read_text())["trials"]
    assert len(trials) == 7 and trials[0]["difference"] == 4.5


def test_a_single_policy_is_not_compared(tmp_path: Path) -> None:
    book = Book(config(tmp_path, policies=("tiny",), trials=1))
    book.write(trial(0, 0, "success"))
    line = result(book)
    assert "paired" not in line and list(line["rows"]) == ["A"] and line["interval"] == [0.2065, 1.0]


def test_the_overlay_is_half_of_each(tmp_path: Path) -> None:
    reference, live = np.full((4, 6, 3), 100, np.uint8), np.full((4, 6, 3), 201, np.uint8)
    assert (blend(reference, live) == 150).all() and difference(reference, live) == 101
    assert difference(live, live) == 0
    write_picture(tmp_path / "deep" / "a.png", reference)
    large = np.full((8, 12, 3), 100, np.uint8)
    assert difference(read_picture(tmp_path / "deep" / "a.png"), large) == 0, "the reference is scaled to the camera"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policies": ("a", "b", "c")}, "one policy or two are compared, found 3"),
        ({"policies": ("ws://10.0.0.2:8000",)}, "the ROS graph runs checkpoints, not servers like ws://10.0.0.2:8000"),
        ({"instruction": " "}, "say what the policy shall do: --instruction"),
        ({"trials": 0}, "trials must be positive and timeout_s 0 to 3600, found 0"),
        ({"timeout_s": 0.0}, "timeout_s 0 to 3600"),
        ({"reference": Path("absent.png")}, "no picture absent.png; check --reference"),
    ],
)
def test_options_are_checked(tmp_path: Path, changes, reason) -> None:
    with pytest.raises(ConfigError, match=reason):
        config(tmp_path, **changes)
