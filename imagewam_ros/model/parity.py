# SPDX-License-Identifier: Apache-2.0
"""`imagewam parity DIR`: compare this installation with reference data, tensor by tensor.

Exit code 0 when all tensors are within their tolerance, 1 when one is not or has an unknown
name, 2 when the directory cannot be read.
"""

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from imagewam_ros.core.errors import CheckpointError, ConfigError, unknown_name
from imagewam_ros.model.reference import Reference, match, read_config
from imagewam_ros.model.reference_flux2 import Flux2Reference
from imagewam_ros.model.reference_omnigen2 import OmniGen2Reference
from imagewam_ros.model.reference_ovis_condition import OvisConditionReference
from imagewam_ros.model.reference_ovis_u1 import OvisU1Reference

HELP = "compare this installation with reference data, tensor by tensor"
EXAMPLE = "imagewam parity test/data/flux2_tiny"

REFERENCES: dict[str, type[Reference]] = {
    "flux2": Flux2Reference,
    "omnigen2": OmniGen2Reference,
    "ovis_u1": OvisU1Reference,
    "ovis_u1_condition": OvisConditionReference,
}


@dataclass(frozen=True)
class Row:
    """One compared tensor. relative is max_abs over the reference's rms; for a bfloat16 result it is its
    distance from float32 on the same schedule over the stored result's distance.
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    relative: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the tensor is within its tolerance."""
        return self.relative <= self.tolerance


@dataclass(frozen=True)
class Report:
    """All tensors of a directory: compared, used as input, and those that nobody knows."""

    directory: str
    variant: str
    rows: tuple[Row, ...]
    inputs: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything was compared and is within its tolerance."""
        return bool(self.rows) and not self.unknown and all(row.passed for row in self.rows)


def run_parity(directory: Path, reference: Reference | None = None) -> Report:
    """Compare every tensor of a directory. Raises CheckpointError when it cannot be read."""
    variant = str(read_config(directory)["variant"])
    if reference is None:
        if variant not in REFERENCES:
            raise CheckpointError(f"{directory}: {unknown_name('variant', variant, REFERENCES)}")
        reference = REFERENCES[variant](directory)
    rules, rows, inputs, unknown = reference.rules(), [], [], []
    for name, wanted in reference.expected.items():
        found = match(name, rules)
        if any(re.fullmatch(pattern, name) for pattern in reference.inputs):
            inputs.append(name)
        elif found is None:
            unknown.append(name)
        else:
            rule, captured = found
            rows.append(compare(name, rule.compute(*captured), wanted, rule.tolerance, reference))
    return Report(str(directory), variant, tuple(rows), tuple(inputs), tuple(unknown))


def compare(name: str, found: Tensor | None, wanted: Tensor, tolerance: float, reference: Reference) -> Row:
    """Return the row of one tensor; another shape is an infinite difference."""
    if found is None or found.shape != wanted.shape:
        return Row(name, tuple(wanted.shape), float("inf"), float("inf"), tolerance)
    difference = (found.detach().double() - wanted.double()).abs()
    scale = _rms(wanted.double())
    if re.fullmatch(r"actions_steps\d+_bf16", name):
        exact = reference.expected[name + "grid_fp32"].double()
        relative = _rms(found.double() - exact) / max(_rms(wanted.double() - exact), 1e-30)
    else:
        relative = float(difference.max()) / max(scale, 1e-30)
    return Row(name, tuple(wanted.shape), float(difference.max()), relative, tolerance)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def table(report: Report) -> str:
    """Return the report for a person."""
    width = max([len(row.name) for row in report.rows] + [6])
    lines = [f"{'tensor':{width}}  {'shape':18} {'max abs':>10} {'relative':>10} {'allowed':>9}  pass"]
    for row in report.rows:
        shape = "x".join(map(str, row.shape))
        verdict = "yes" if row.passed else "NO"
        lines.append(
            f"{row.name:{width}}  {shape:18} {row.max_abs:10.2e} {row.relative:10.2e} {row.tolerance:9.0e}  {verdict}"
        )
    lines += [f"unknown tensor {name}: this version cannot recompute it" for name in report.unknown]
    failed = sum(not row.passed for row in report.rows)
    lines.append(
        f"{report.variant}: {len(report.rows)} compared ({failed} outside), {len(report.inputs)} inputs, "
        f"{len(report.unknown)} unknown: {'PASS' if report.passed else 'FAIL'}"
    )
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("directory", type=Path, help="folder with config.json, checkpoint.pt and expected.safetensors")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        report = run_parity(args.directory)
    except (CheckpointError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        rows = [{**asdict(row), "passed": row.passed} for row in report.rows]
        print(json.dumps({**asdict(report), "rows": rows, "passed": report.passed, "torch": torch.__version__}))
    else:
        print(table(report))
    return 0 if report.passed else 1
