# SPDX-License-Identifier: Apache-2.0
"""The evaluation on paper: report.json for programs, report.html for people, videos of what went wrong."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from imagewam_ros.demo_pictures import Video, tiles
from imagewam_ros.evaluation.drivers import CONDITIONS
from imagewam_ros.evaluation.published import legend, load_published
from imagewam_ros.evaluation.published import rows as published_rows
from imagewam_ros.evaluation.real import RealTrial
from imagewam_ros.evaluation.trial import Outcome
from imagewam_ros.evaluation.workers import Job, Setting, Worker
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.scene import FRONT

Outcomes = Mapping[str, Sequence[Outcome] | Sequence[RealTrial]]
HEADS = ("condition", "what", "success", "95 % interval (Wilson)", "mean time", "limits broken", "failed seeds")
STYLE = (
    "body{font:16px sans-serif;max-width:72em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.3em .8em;text-align:right;border-bottom:1px solid #ddd}td:nth-child(-n+2),th:nth-child(-n+2)"
    "{text-align:left}figure{display:inline-block;margin:.5em}.bar{fill:#9bc}.rate{fill:#036}small{color:#555}"
)
SHOWN_SEEDS = 20


def write_report(
    folder: Path, lines: Sequence[Mapping[str, Any]], outcomes: Mapping[str, Outcomes],
    videos: Mapping[str, Sequence[Path]], about: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Write report.json (a line per task and every trial) and report.html; return the latter's path.

    outcomes and videos are by task; `about` is the provenance.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trials = [
        {"task": task, **asdict(outcome)} for task, some in outcomes.items() for row in some.values() for outcome in row
    ]
    data = {"tasks": list(lines), "provenance": dict(about), "trials": trials}
    (folder / "report.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf8")
    page = folder / "report.html"
    page.write_text(_page(lines, videos, about), encoding="utf8")
    return page


def film_failures(setting: Setting, seeds: Sequence[int], folder: Path) -> list[Path]:
    """Play `seeds` again, the same to the bit where the policy is, and film them. Returns the videos."""
    folder.mkdir(parents=True, exist_ok=True)
    worker = Worker(setting)
    paths = []
    for seed in seeds:
        path = folder / f"{setting.task}_failure_{seed}.mp4"
        video = Video(path, 1e9 / setting.config.frame_ns)

        def show(now: Cell, video: Video = video, seed: int = seed) -> None:
            views = {name: now.render(name) for name in now.embodiment.camera_names}
            caption = f"seed {seed}: {now.instruction}   {now.time_ns * 1e-9:4.1f} s"
            video.add(tiles(now.render(FRONT), views, caption))

        worker.play(Job("normal", seed), show)
        video.close()
        paths.append(path)
    worker.close()
    return paths


def _page(lines: Sequence[Mapping[str, Any]], videos: Mapping[str, Sequence[Path]], about: Mapping[str, Any]) -> str:
    sections = "".join(_section(line, videos.get(str(line["task"]), ())) for line in lines)
    published = load_published()
    head, *body = published_rows(published)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf8'><title>Evaluation</title><style>{STYLE}</style>"
        f"<h1>Evaluation</h1>{sections}"
        f"<h2>Published by others</h2><p>Success in per cent on other benchmarks and robots, as their sources give it; "
        "nothing here was measured by this program, and none of it compares with the tables above.</p>"
        f"<table>{_cells(head, 'th')}{''.join(_cells(row) for row in body)}</table>"
        f"<small><ul>{''.join(f'<li>{escape(line)}</li>' for line in legend(published))}</ul></small>"
        f"<h2>Provenance</h2><ul>{_facts(about)}</ul></html>\n"
    )


def _section(line: Mapping[str, Any], videos: Sequence[Path]) -> str:
    """One task: what was evaluated, its table, the comparison and the films."""
    rows = "".join(_row(name, row) for name, row in line["rows"].items())
    facts = _facts({key: value for key, value in line.items() if key not in ("rows", "paired", "task")})
    films = "".join(
        f"<figure><video src='{escape(path.name)}' controls width='480'></video>"
        f"<figcaption>{escape(path.stem)}</figcaption></figure>"
        for path in videos
    )
    return (
        f"<h2>Task {escape(str(line['task']))}</h2><ul>{facts}</ul>"
        f"<table>{_cells((*HEADS, ''), 'th')}{rows}</table>{_paired(line.get('paired'))}{films}"
    )


def _row(name: str, row: Mapping[str, Any]) -> str:
    low, high = (100 * bound for bound in row["interval"])
    failed = [str(seed) for seed in row.get("failed_seeds", [])]
    more = f" and {len(failed) - SHOWN_SEEDS} more" if len(failed) > SHOWN_SEEDS else ""
    mean = row.get("mean_time_s")
    texts = (
        name, CONDITIONS.get(name, ""), f"{row['successes']}/{row['episodes']}", f"{low:.1f} to {high:.1f} %",
        "-" if mean is None else f"{mean:.2f} s", str(row.get("limit_violations", "-")),
        ", ".join(failed[:SHOWN_SEEDS]) + more,
    )  # fmt: skip
    rate = 100 * row["successes"] / row["episodes"]
    return _cells(texts).removesuffix("</tr>") + f"<td>{_bar(low, high, rate)}</td></tr>"


def _bar(low: float, high: float, rate: float) -> str:
    """Interval and rate in per cent as a small picture."""
    return (
        "<svg width='110' height='12' role='img'><rect x='4' y='5' width='102' height='1' fill='#ccc'/>"
        f"<rect class='bar' x='{5 + low:.1f}' y='2' width='{max(high - low, 0.5):.1f}' height='8'/>"
        f"<rect class='rate' x='{4 + rate:.1f}' y='0' width='2' height='12'/></svg>"
    )


def _paired(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    low, high = (100 * bound for bound in found["interval"])
    return (
        f"<p>Against {escape(str(found['against']))} ({escape(str(found['checkpoint']))}) on the same seeds: only the "
        f"first succeeded {found['only_first']} times, only the second {found['only_second']} times, both "
        f"{found['both']}, neither {found['neither']}. Difference {100 * found['difference']:+.1f} %, 95 % interval "
        f"{low:+.1f} to {high:+.1f} % (Newcombe, paired); p = {found['p']:g} (McNemar, exact).</p>"
    )


def _facts(facts: Mapping[str, Any]) -> str:
    return "".join(f"<li>{escape(key)}: {escape(_words(value))}</li>" for key, value in facts.items())


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(part)}" for key, part in value.items())
    return str(value)


def _cells(texts: Sequence[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) + "</tr>"
