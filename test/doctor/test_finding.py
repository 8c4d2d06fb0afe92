# SPDX-License-Identifier: Apache-2.0
"""The page of findings."""

import ast

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.doctor_checks.finding import Level, failed, guarded, page, passed, skipped, warned, worst


def test_the_page_shows_levels_remedies_and_counts():
    text = page("title", [passed("a", "fine"), failed("long name", "broken " * 30, "repair it"), skipped("b", "")])
    lines = text.splitlines()
    assert lines[0] == "title"
    assert lines[2] == "PASS a          fine"
    assert lines[3].startswith("FAIL long name  broken broken")
    assert f"{16 * ' '}-> repair it" in lines
    assert lines[-1] == "1 fail, 0 warn, 1 pass, 1 skip"
    assert max(map(len, lines)) <= 110


def test_the_worst_level_counts():
    assert worst([passed("a", ""), warned("b", "", ""), skipped("c", "")]) is Level.WARN
    assert worst([]) is Level.SKIP


def test_an_error_becomes_a_failure_and_others_go_on():
    def broken():
        yield passed("a", "first")
        raise ConfigError("no such file: x; check the path")

    first, second = guarded("subject", broken)
    assert first.level is Level.PASS
    assert (second.level, second.found, second.remedy) == (Level.FAIL, "no such file: x", "check the path")


def test_the_page_of_the_doctor_names_every_check():
    root = share_dir()
    sources = [root / "imagewam_ros" / "doctor.py", *(root / "imagewam_ros" / "doctor_checks").glob("*.py")]
    calls = [node for path in sources for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    makers = {"passed", "warned", "failed", "skipped"}
    named = {c.args[0].value for c in calls if ast.unparse(c.func) in makers and isinstance(c.args[0], ast.Constant)}
    page = (root / "docs" / "troubleshooting.md").read_text()
    assert len(named) > 20
    assert [name for name in named - {"URDF", "contract", "live"} if f"`{name}`" not in page] == []
