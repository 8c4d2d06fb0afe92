# SPDX-License-Identifier: Apache-2.0
"""Does a policy learn faster with its prefix modulated at t = 0 than at the drawn image time, the authors' way?

    python benchmarks/prefix_modulation.py runs/tiny --data data/demonstrations --out runs/prefix

Trains the `tiny` network both ways from the same first weights on the same batches, for each seed, with what the run
folder of another training holds already (frames, autoencoder, latents). Every frame of a batch learns its image, as the
authors' way needs. Prints chunk errors on held-out frames and, in the simulator, successes.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.evaluation.interval import wilson
from imagewam_ros.evaluation.trial import TrialConfig
from imagewam_ros.evaluation.workers import Job, Setting, play
from imagewam_ros.training.presets import find_preset
from imagewam_ros.training.run import train

ROBOT, TASK, FIRST_SEED = "sim_cell", "tray_lift", 3000
SHARED = ("pixels.npy", "demonstrations.npz", "autoencoder", "latents.npy")


def main() -> None:
    """Train and evaluate; runs that are done already are only read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of `imagewam train --preset tiny`")
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="its episodes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--episodes", type=int, default=50, help="per policy")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    tiny, robot = find_preset("tiny"), load_embodiment(ROBOT)
    for seed in range(asked.seeds):
        for zero in (True, False):
            out = asked.out / f"{'zero' if zero else 'drawn'}_{seed}"
            borrow(asked.run, out)
            training = dataclasses.replace(
                tiny.training, steps=asked.steps, batch=asked.batch, targets=asked.batch, prefix_at_zero=zero
            )
            report = train(dataclasses.replace(tiny, training=training), asked.data, out, robot, seed)
            found = {"prefix_at_zero": zero, "seed": seed, "steps": asked.steps}
            found |= {name: report[name] for name in ("chunk_error", "chunk_error_early", "network_cpu_s")}
            setting = Setting(str(out / "checkpoint"), TASK, ROBOT, TrialConfig())
            jobs = [Job("normal", FIRST_SEED + place) for place in range(asked.episodes)]
            wins = sum(outcome.success for outcome in play(jobs, setting, workers=1))
            print(json.dumps(found | {"successes": wins, "interval": wilson(wins, asked.episodes)}), flush=True)


def borrow(run: Path, out: Path) -> None:
    """Link what was read and encoded already into a new run folder."""
    out.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        if not (out / name).exists():
            (out / name).symlink_to((run / name).resolve())


if __name__ == "__main__":
    main()
