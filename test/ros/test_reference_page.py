# SPDX-License-Identifier: Apache-2.0
"""docs/reference/nodes.md says what configured nodes have; `make reference` writes it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = "import sys; sys.path.insert(0, 'tools'); import reference_nodes; print(reference_nodes.page())"


def test_the_page_is_what_the_nodes_have() -> None:
    pytest.importorskip("torch", reason="the policy node needs it")
    words = [sys.executable, "-c", CODE]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "reference" / "nodes.md").read_text(encoding="utf8")
    assert page.split() == done.stdout.split(), "run `make reference`"
