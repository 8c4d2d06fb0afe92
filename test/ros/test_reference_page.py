# SPDX-License-Identifier: Apache-2.0
"""The page of the nodes and the access policy say what configured nodes have; `make reference` writes both."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import json, sys
sys.path.insert(0, "tools")
import access_policy, reference_nodes
print("FILES", json.dumps([reference_nodes.page(), access_policy.policy()]))
"""


def test_page_and_policy_are_what_the_nodes_have() -> None:
    pytest.importorskip("torch", reason="the policy node needs it")
    words = [sys.executable, "-c", CODE]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    page, policy = json.loads(done.stdout.partition("FILES ")[2])
    committed = (ROOT / "docs" / "reference" / "nodes.md").read_text(encoding="utf8")
    assert committed.splitlines() == page.splitlines(), "run `make reference`"
    assert "| subscribes to | `joint_states` |" in page and "change_state" not in page
    committed = (ROOT / "config" / "security" / "cell.policy.xml").read_text(encoding="utf8")
    assert committed.splitlines() == policy.splitlines(), "run `make reference`"
