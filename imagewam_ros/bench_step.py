# SPDX-License-Identifier: Apache-2.0
"""`imagewam bench step`: one policy step of ours beside the authors' schedule on the same random weights.

On a CPU the ratios are of process time, the least of all repeats: a shared machine disturbs it
least. On a GPU they are of the median.
"""

import argparse
import json

from imagewam_ros.core.errors import ConfigError

PRESETS = ("tiny", "sixth", "4b", "9b")
PRESETS_OF = {"flux2": PRESETS, "omnigen2": PRESETS[:2], "ovis_u1": PRESETS[:2]}
LAYOUTS = ("robotwin", "libero")
WEIGHTS = ("full", "int8_weight_only", "fp8_weight_only", "fp8_dynamic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam bench step`."""
    parser.add_argument("--backbone", choices=tuple(PRESETS_OF), default="flux2", help="(default: flux2)")
    parser.add_argument("--preset", choices=PRESETS, default="sixth", help="widths of the network (default: sixth)")
    parser.add_argument("--layout", choices=LAYOUTS, default="robotwin", help="of the cameras (default: robotwin)")
    parser.add_argument("--reference", action="store_true", help="also run the authors' schedule, and compare")
    parser.add_argument("--denoiser", choices=("sequential", "picard"), default="sequential", help="of ours")
    parser.add_argument("--weights", choices=tuple(WEIGHTS), default="full", help="of ours (default: full)")
    parser.add_argument("--compile", action="store_true", help="fuse the kernels of ours by torch.compile, on a GPU")
    parser.add_argument("--chunking", action="store_true", help="also run ours after committed rows")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU, else bfloat16")
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="measured runs of each (default: 5)")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Returns 1 when the answers of both schedules differ by more than they may."""
    if arguments.repeats < 1 or arguments.threads < 1:
        raise ConfigError("--repeats and --threads must be positive; try --repeats 5 --threads 1")
    if arguments.preset not in PRESETS_OF[arguments.backbone]:
        known = " or ".join(PRESETS_OF[arguments.backbone])
        raise ConfigError(f"preset {arguments.preset!r} is FLUX.2's; {arguments.backbone} has --preset {known}")
    import torch

    from imagewam_ros.bench_reference.step import measure, table
    from imagewam_ros.model.device import choose_device

    torch.set_num_threads(arguments.threads)
    device = torch.device(choose_device(arguments.device))
    dtype = getattr(torch, arguments.dtype or ("float32" if device.type == "cpu" else "bfloat16"))
    result = measure(arguments, device, dtype)
    print(table(result))
    if arguments.json:
        print(json.dumps({name: value for name, value in result.items() if name != "runs"}))
    exact = dtype == torch.float32 and arguments.denoiser == "sequential" and arguments.weights == "full"
    allowed = 1e-4 if exact else float("inf")
    return 0 if result.get("max_abs_diff", 0.0) <= allowed else 1
