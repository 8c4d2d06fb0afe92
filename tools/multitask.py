# SPDX-License-Identifier: Apache-2.0
"""One policy for three tasks, from nothing but the simulator: record, train in two stages, evaluate.

    .venv/bin/python tools/multitask.py --out runs/multitask

Stopped and started again, it goes on where it was. The first stage learns all but the blue block, so that
the red one's place is understood before the instruction has to choose between the two.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from imagewam_ros.data.episode import FIRST_SEED

RED, BLUE = "lift the red block", "lift the blue block"
TRAY, BAR = "lift the tray with both hands", "hand the bar from the right hand to the left hand"
STAY = (("tray_lift", (BAR, RED, BLUE)), ("hand_over", (TRAY, RED, BLUE)), ("block_lift", (TRAY, BAR)))
"""What is asked for where it cannot be done: the expert stays, and so shall the policy."""


CONDITIONS = ("normal", "wrong_instruction", "grey")


def imagewam(*words: object) -> int:
    """Run one command of the package and return its exit code."""
    print("imagewam", *words, flush=True)
    return subprocess.run([sys.executable, "-m", "imagewam_ros", *map(str, words)]).returncode


def record(out: Path, task: str, episodes: int, place: int, instruction: str = "") -> Path:
    """Record demonstrations with seeds of their own and return their folder."""
    folder = out / f"demonstrations_{place}_{task}"
    words = ["--instruction", instruction] if instruction else []
    seed = FIRST_SEED * (1 + place)
    code = imagewam(
        "record", "--expert", "--task", task, "--episodes", episodes, "--seed", seed, "--out", folder, *words
    )
    if code:
        raise SystemExit(f"recording {task} ended with {code}")
    return folder


def main() -> int:
    """Do it all. Returns 0 when the policy succeeded in nine of ten everywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/multitask"))
    parser.add_argument("--demonstrations", type=int, default=600, help="per task")
    parser.add_argument("--stay", type=int, default=40, help="episodes per wrong instruction")
    parser.add_argument("--steps", type=int, default=4500, help="of each stage")
    parser.add_argument("--autoencoder-steps", type=int, default=700)
    parser.add_argument("--episodes", type=int, default=100, help="of the evaluation, per task and condition")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    count, half = asked.demonstrations, (asked.demonstrations + 1) // 2
    first = [
        record(asked.out, "tray_lift", count, 0),
        record(asked.out, "hand_over", count, 1),
        record(asked.out, "block_lift", half, 2, RED),
    ]
    place = 4
    for task, wrong in STAY:
        for instruction in wrong:
            first.append(record(asked.out, task, asked.stay, place, instruction))
            place += 1
    both = [*first, record(asked.out, "block_lift", half, 3, BLUE)]
    numbers = ["--threads", asked.threads, "--steps", asked.steps, "--autoencoder-steps", asked.autoencoder_steps]
    begin, folder = "tiny", asked.out
    for name, data in (("stage1", first), ("stage2", both)):
        folder = asked.out / name
        words = ["--preset", "tiny_multitask", "--begin-with", begin, "--out", folder, *numbers]
        code = imagewam("train", *words, "--data", *data)
        if code:
            return code
        begin = str(folder / "checkpoint")
    worst = 0
    for task in ("tray_lift", "hand_over", "block_lift"):
        words = ["--policy", folder / "checkpoint", "--task", task, "--condition", *CONDITIONS]
        report = asked.out / f"evaluation_{task}"
        code = imagewam("evaluate", *words, "--episodes", asked.episodes, "--seed", 1000, "--out", report)
        if code not in (0, 1):
            return code
        worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main())
