# SPDX-License-Identifier: Apache-2.0
"""Test the rooms that need neither torch nor ROS, in an environment of the Python that runs this.

    python3.10 tools/test_rooms.py            or: make test-rooms PYTHON=python3.10
    python3.10 tools/test_rooms.py -x -k sync   further words go to pytest

The environment is build/rooms/VERSION; a second run uses it again.
"""

import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = ("accelerate", "diffusers", "huggingface_hub", "peft", "tokenizers", "torch", "transformers")
"""Requirements that import torch, or serve nothing else."""

NOT_NEEDED = ("mypy", "ruff", "types-pyyaml")
TESTS = (
    *(f"test/{room}" for room in ("core", "control", "teleop", "data", "kinematics", "doctor", "cameras")),
    *(f"test/test_{name}.py" for name in ("architecture", "graph", "supervisor", "launch_file", "domain", "views")),
)
MARKS = "not ros and not slow and not soak and not hardware"


def main() -> int:
    """Make the environment and run the tests. Returns pytest's exit code."""
    folder = ROOT / "build" / "rooms" / f"{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin" / "python"
    wanted = requirements()
    stamp = folder / "requirements"
    if not stamp.is_file() or stamp.read_text(encoding="utf8") != "\n".join(wanted):
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        stamp.write_text("\n".join(wanted), encoding="utf8")
    return subprocess.run([python, "-m", "pytest", "-q", "-m", MARKS, *TESTS, *sys.argv[1:]], cwd=ROOT).returncode


def requirements() -> list[str]:
    """Return what these rooms and their tests need, as pip takes it."""
    found = []
    for name in ("runtime", "dev"):
        for line in (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf8").splitlines():
            wanted = line.split("#")[0].strip()
            if wanted and re.split(r"[<>=~!; ]", wanted)[0].lower() not in (*TORCH, *NOT_NEEDED):
                found.append(wanted)
    return found


if __name__ == "__main__":
    sys.exit(main())
