# SPDX-License-Identifier: Apache-2.0
"""The page of findings."""

from imagewam_ros.core.errors import ConfigError
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
