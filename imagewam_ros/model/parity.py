# SPDX-License-Identifier: Apache-2.0
"""`imagewam parity DIR`: compare this installation with reference data, tensor by tensor.

Where float32 disagrees a little more than is asked, float64 says whose rounding it is: see `Row`.
Exit code 0 when all tensors are within their tolerance, 1 when one is not or has an unknown
name, 2 when the directory cannot be read.
"""

import argparse
import json
import re
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from imagewam_ros.core.errors import CheckpointError, ConfigError, unknown_name
from imagewam_ros.model.device import choose_device
from imagewam_ros.model.float64 import Float64
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


BOTH_ROUND = 2

NO_FLOAT64 = re.compile(r"actions_steps\d+_bf16")
"""Results that are about another precision."""


@dataclass(frozen=True)
class Row:
    """One compared tensor. relative is max_abs over the reference's rms; for a bfloat16 result it is its
    distance from float32 on the same schedule over the stored result's distance.

    ours and theirs are the distances of our result and of the stored one from ours in float64, in the same
    measure, where they were computed.
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    relative: float
    tolerance: float
    ours: float | None = None
    theirs: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the tensor is within its tolerance.

        Where the stored tensor itself is farther than that from float64, two results that both round may be
        twice as far apart.
        """
        rounded = self.theirs is not None and self.theirs > self.tolerance
        return self.relative <= self.tolerance * (BOTH_ROUND if rounded else 1)


@dataclass(frozen=True)
class Settings:
    """Where and how our side is computed."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    other_hardware: bool = False


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


def run_parity(
    directory: Path, reference: Reference | None = None, settings: Settings | None = None, float64: bool = False
) -> Report:
    """Compare every tensor of a directory. Raises CheckpointError when it cannot be read.

    float64 gives every row its distances from float64, not only those that need them.
    """
    settings = settings or Settings()
    variant = str(read_config(directory)["variant"])
    if reference is None:
        if variant not in REFERENCES:
            raise CheckpointError(f"{directory}: {unknown_name('variant', variant, REFERENCES)}")
        reference = REFERENCES[variant](directory, settings.device, settings.dtype, settings.other_hardware)
    rules, rows, inputs, unknown = reference.rules(), [], [], []
    for name, wanted in reference.expected.items():
        found = match(name, rules)
        if any(re.fullmatch(pattern, name) for pattern in reference.inputs):
            inputs.append(name)
        elif found is None:
            unknown.append(name)
        else:
            rule, captured = found
            with Float64() if settings.dtype == torch.float64 else nullcontext():
                rows.append(compare(name, rule.compute(*captured), wanted, rule.tolerance, reference))
    if settings.dtype == torch.float32:
        rows = judged(rows, directory, reference, settings, float64)
    return Report(str(directory), variant, tuple(rows), tuple(inputs), tuple(unknown))


def judged(rows: list[Row], directory: Path, reference: Reference, settings: Settings, every: bool) -> list[Row]:
    """Give rows that are a little outside, or every one, their distances from our float64."""
    doubtful = [
        row
        for row in rows
        if row.tolerance and row.max_abs < float("inf") and not NO_FLOAT64.fullmatch(row.name)
        and (every or row.tolerance < row.relative <= BOTH_ROUND * row.tolerance)
    ]  # fmt: skip
    if not doubtful:
        return rows
    wide = type(reference)(directory, settings.device, torch.float64, settings.other_hardware)
    rules, wide_rules = reference.rules(), wide.rules()
    found = {}
    for row in doubtful:
        (rule, captured), (wide_rule, _) = match(row.name, rules), match(row.name, wide_rules)  # type: ignore[misc]
        with Float64():
            exact = wide_rule.compute(*captured)
        assert exact is not None, "the float32 result has the stored shape"
        ours = compare(row.name, rule.compute(*captured), exact, row.tolerance, reference)
        theirs = compare(row.name, exact, reference.expected[row.name], row.tolerance, reference)
        found[row.name] = replace(row, ours=ours.relative, theirs=theirs.relative)
    return [found.get(row.name, row) for row in rows]


def compare(name: str, found: Tensor | None, wanted: Tensor, tolerance: float, reference: Reference) -> Row:
    """Return the row of one tensor; another shape is an infinite difference."""
    if found is None or found.shape != wanted.shape:
        return Row(name, tuple(wanted.shape), float("inf"), float("inf"), tolerance)
    found, wanted = found.detach().cpu(), wanted.detach().cpu()
    difference = (found.double() - wanted.double()).abs()
    scale = _rms(wanted.double())
    if re.fullmatch(r"actions_steps\d+_bf16", name):
        exact = reference.expected[name + "grid_fp32"].double().cpu()
        relative = _rms(found.double() - exact) / max(_rms(wanted.double() - exact), 1e-30)
    else:
        relative = float(difference.max()) / max(scale, 1e-30)
    return Row(name, tuple(wanted.shape), float(difference.max()), relative, tolerance)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def table(report: Report) -> str:
    """Return the report for a person."""
    width = max([len(row.name) for row in report.rows] + [6])
    lines = [f"{'tensor':{width}}  {'shape':18} {'max abs':>10} {'relative':>10} {'asked':>9}  pass"]
    for row in report.rows:
        shape = "x".join(map(str, row.shape))
        verdict = "yes" if row.passed else "NO"
        if row.ours is not None:
            verdict += f"  (from float64: ours {row.ours:.2e}, stored {row.theirs:.2e})"
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
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto; figures hold on a CPU")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="arithmetic to compare")
    parser.add_argument("--float64", action="store_true", help="say of each tensor how far both are from float64")
    parser.add_argument(
        "--other-hardware", action="store_true", help="allow for sines of large angles (OmniGen2); set on a GPU"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        settings = Settings(choose_device(args.device), getattr(torch, args.dtype), args.other_hardware)
        report = run_parity(args.directory, settings=settings, float64=args.float64)
    except (CheckpointError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        rows = [{**asdict(row), "passed": row.passed} for row in report.rows]
        print(json.dumps({**asdict(report), "rows": rows, "passed": report.passed, "torch": torch.__version__}))
    else:
        print(table(report))
    return 0 if report.passed else 1
