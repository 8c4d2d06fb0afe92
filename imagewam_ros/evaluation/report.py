# SPDX-License-Identifier: Apache-2.0
"""The evaluation on paper: report.json for programs, report.html for people, videos of what went wrong."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.demo_pictures import Video, tiles
from imagewam_ros.evaluation.drivers import CONDITIONS, PolicyDriver
from imagewam_ros.evaluation.trial import Outcome, TrialConfig, run_trial
from imagewam_ros.policy import Policy
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.scene import FRONT

HEADS = ("condition", "what", "success", "95 % interval (Wilson)", "failed seeds")
STYLE = "body{font:16px sans-serif;max-width:60em;margin:2em auto}td,th{padding:.3em 1em;text-align:right}"


def write_report(
    folder: Path, line: Mapping[str, Any], outcomes: Mapping[str, Sequence[Outcome]], videos: Sequence[Path]
) -> Path:
    """Write report.json (line and every trial) and report.html; return the latter's path."""
    trials = [asdict(outcome) for some in outcomes.values() for outcome in some]
    (folder / "report.json").write_text(json.dumps({**line, "trials": trials}, indent=1) + "\n", encoding="utf8")
    page = folder / "report.html"
    page.write_text(_page(line, videos), encoding="utf8")
    return page


def film_failures(
    policy: Path, task: str, robot: str, config: TrialConfig, seeds: Sequence[int], folder: Path
) -> list[Path]:
    """Play `seeds` again, the same to the bit, and film them. Returns the videos."""
    cell = Cell(load_embodiment(robot), task)
    driver = PolicyDriver(Policy.load(policy, cell.embodiment))
    paths = []
    for seed in seeds:
        path = folder / f"failure_{seed}.mp4"
        video = Video(path, 1e9 / config.frame_ns)

        def show(now: Cell, video: Video = video, seed: int = seed) -> None:
            views = {name: now.render(name) for name in now.embodiment.camera_names}
            caption = f"seed {seed}: {now.instruction}   {now.time_ns * 1e-9:4.1f} s"
            video.add(tiles(now.render(FRONT), views, caption))

        run_trial(cell, driver, "normal", seed, config, show)
        video.close()
        paths.append(path)
    cell.close()
    return paths


def _page(line: Mapping[str, Any], videos: Sequence[Path]) -> str:
    rows = "".join(_row(name, row) for name, row in line["rows"].items())
    facts = "".join(f"<li>{escape(key)}: {escape(str(line[key]))}</li>" for key in line if key != "rows")
    films = "".join(
        f"<figure><video src='{escape(path.name)}' controls width='480'></video>"
        f"<figcaption>{escape(path.stem)}</figcaption></figure>"
        for path in videos
    )
    return (
        f"<!doctype html><meta charset='utf8'><title>Evaluation</title><style>{STYLE}</style>"
        f"<h1>Evaluation: {escape(str(line['task']))}</h1><ul>{facts}</ul>"
        f"<table><tr>{''.join(f'<th>{head}</th>' for head in HEADS)}</tr>"
        f"{rows}</table>{films}\n"
    )


def _row(name: str, row: Mapping[str, Any]) -> str:
    low, high = (100 * bound for bound in row["interval"])
    failed = ", ".join(str(seed) for seed in row.get("failed_seeds", [])[:20])
    cells = (
        name, CONDITIONS.get(name, ""), f"{row['successes']}/{row['episodes']}", f"{low:.1f} to {high:.1f} %", failed,
    )  # fmt: skip
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
