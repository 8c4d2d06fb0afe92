# SPDX-License-Identifier: Apache-2.0
"""One policy for three tasks, from nothing but the simulator: record, train, evaluate.

    .venv/bin/python tools/multitask.py --out runs/multitask

Stopped and started again, it goes on where it was. The blue block is held back at first, so that the red one's
place is understood before the instruction has to choose between the two.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from imagewam_ros.data.episode import FIRST_SEED

RED, BLUE = "lift the red block", "lift the blue block"
TRAY, BAR = "lift the tray with both hands", "hand the bar from the right hand to the left hand"
SHARES = {"tray_lift": 1.0, "hand_over": 1.2, "block_lift": 2.0}
"""Demonstrations of each task, as shares of --demonstrations: blocks have two instructions, the bar is the hardest."""

STAY = (("tray_lift", (BAR, RED, BLUE)), ("hand_over", (TRAY, RED, BLUE)), ("block_lift", (TRAY, BAR)))
"""What is asked for where it cannot be done: the expert stays, and so shall the policy."""

CONDITIONS = ("normal", "wrong_instruction", "grey")


def imagewam(*words: object) -> int:
    """Run one command of the package, say how long it took, and return its exit code."""
    print("imagewam", *words, flush=True)
    begin = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "imagewam_ros", *map(str, words)]).returncode
    print(f"took {(time.monotonic() - begin) / 60:.1f} min", flush=True)
    return code


def record(out: Path, task: str, episodes: int, instruction: str, place: int) -> Path:
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
    parser.add_argument("--demonstrations", type=int, default=600, help="of the tray; of the others by their shares")
    parser.add_argument("--stay", type=int, default=40, help="episodes per wrong instruction")
    parser.add_argument("--steps", type=int, default=14000, help="of the network")
    parser.add_argument("--hold-back-steps", type=int, default=5000, help="of these, without the blue block")
    parser.add_argument("--autoencoder-steps", type=int, default=700)
    parser.add_argument("--episodes", type=int, default=100, help="of the evaluation, per task and condition")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    tried = [(task, round(share * asked.demonstrations), "") for task, share in SHARES.items()]
    tried += [(task, asked.stay, words) for task, wrong in STAY for words in wrong]
    data = [record(asked.out, *what, place) for place, what in enumerate(tried)]
    words = ["--preset", "tiny_multitask", "--data", *data, "--out", asked.out / "run", "--threads", asked.threads]
    words += ["--steps", asked.steps, "--autoencoder-steps", asked.autoencoder_steps]
    words += ["--hold-back", BLUE, "--hold-back-steps", asked.hold_back_steps]
    code = imagewam("train", *words)
    if code:
        return code
    worst = 0
    for task in SHARES:
        words = ["--policy", asked.out / "run" / "checkpoint", "--task", task, "--condition", *CONDITIONS]
        report = asked.out / f"evaluation_{task}"
        code = imagewam("evaluate", *words, "--episodes", asked.episodes, "--seed", 1000, "--out", report)
        if code not in (0, 1):
            return code
        worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main())
