# SPDX-License-Identifier: Apache-2.0
"""Make a full-size 4B `model.pt` of random weights, import it, load it, and report the peak of host memory.

Opt-in: writes two files of 9 GB under the given folder and removes them. Run on a machine with 24 GiB:

    python benchmarks/synthetic_4b.py /tmp/synthetic
"""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from imagewam_ros.importer import import_checkpoint
from imagewam_ros.model import factory
from imagewam_ros.model.checkpoint import load_weights, read_config
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.official_contract import ImportOptions

LIMIT = 1.3
"""Peak host memory over the size of the weights."""

KEYS = ("global_min", "global_max", "global_mean", "global_std", "global_q01", "global_q99")


def make(folder: Path) -> None:
    """Write model.pt with its aliases, dataset_stats.json and config.yaml."""
    folder.mkdir(parents=True)
    spec = factory.ModelSpec("flux2", Flux2Config(), None)
    mot, proprio = {}, {}
    for name, like in factory.build_network(spec, "meta").state_dict().items():
        tensor = torch.full(like.shape, 0.01, dtype=torch.bfloat16)
        tensor.view(-1)[::97] = 0.02
        part, rest = name.split(".", 1)
        if part == "proprio_encoder":
            proprio[rest] = tensor
            continue
        mot["mixtures.video.transformer." + rest if part == "video" else "mixtures.action." + rest] = tensor
        if part == "video" and "_blocks." in rest:
            mot["mixtures.video." + rest] = tensor  # the same storage under its second name
    torch.save(
        {"mot": mot, "proprio_encoder": proprio, "step": 0, "torch_dtype": "torch.bfloat16"}, folder / "model.pt"
    )
    values = {key: [float(i + 1)] * 14 for i, key in enumerate(KEYS)}
    both = {"state": {"default": values}, "action": {"default": values}}
    (folder / "dataset_stats.json").write_text(json.dumps(both))
    data = {"num_frames": 17, "norm_default_mode": "z-score"}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data}))


def convert(folder: Path) -> None:
    """Import, in a process of its own so that its peak is its own."""
    import_checkpoint(folder / "official", folder / "ours", ImportOptions(50_000_000, 1.0, "compact_288x256"))


def load(folder: Path) -> None:
    """Load the imported weights."""
    spec, _ = read_config(folder / "ours")
    network = factory.build_network(spec, "meta")
    load_weights(network, folder / "ours" / "model.safetensors", torch.device("cpu"), torch.bfloat16)


STEPS = {"make": lambda folder: make(folder / "official"), "convert": convert, "load": load}


def main() -> int:
    """Run one step when named, else all of them in processes of their own; 1 when a peak is over the limit."""
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        STEPS[sys.argv[2]](folder)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return 0
    worst = 0.0
    try:
        for step in STEPS:
            done = subprocess.run([sys.executable, __file__, str(folder), step], check=True, stdout=subprocess.PIPE)
            peak = int(done.stdout.split()[-1])
            size = (folder / "official" / "model.pt").stat().st_size
            print(
                f"{step:8} peak {peak / 1e9:.2f} GB, {peak / size:.2f} of the weights' {size / 1e9:.2f} GB", flush=True
            )
            if step != "make":
                worst = max(worst, peak / size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"limit {LIMIT}: {'kept' if worst <= LIMIT else 'EXCEEDED'}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
