# SPDX-License-Identifier: Apache-2.0
"""What a check found and what to do about it, and the page of all findings."""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from imagewam_ros.core.errors import ImageWamError

WIDTH = 110


class Level(IntEnum):
    """How a check ended, in order of severity."""

    SKIP = 0
    PASS = 1
    WARN = 2
    FAIL = 3


class Finding(NamedTuple):
    """One line of the page: the subject, how it is, what was found, and what to do."""

    check: str
    level: Level
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for --json."""
        return {"check": self.check, "level": self.level.name.lower(), "found": self.found, "remedy": self.remedy}


def passed(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, Level.PASS, found)


def warned(check: str, found: str, remedy: str) -> Finding:
    """It works, and will disappoint."""
    return Finding(check, Level.WARN, found, remedy)


def failed(check: str, found: str, remedy: str) -> Finding:
    """It will not work, or not safely."""
    return Finding(check, Level.FAIL, found, remedy)


def skipped(check: str, found: str, remedy: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(check, Level.SKIP, found, remedy)


def guarded(check: str, findings: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Run one check; an error of ours becomes its failure, so that the others still run."""
    try:
        yield from findings()
    except ImageWamError as error:
        found, _, remedy = str(error).partition("; ")
        yield failed(check, found, remedy)


def worst(findings: Sequence[Finding]) -> Level:
    """Return the most severe level."""
    return max((finding.level for finding in findings), default=Level.SKIP)


def page(title: str, findings: Sequence[Finding]) -> str:
    """Return all findings as text, one paragraph each, the count last."""
    column = max((len(finding.check) for finding in findings), default=0)
    lines = [title, ""]
    for finding in findings:
        head = f"{finding.level.name:<5}{finding.check:<{column}}  "
        indent = " " * len(head)
        lines += textwrap.wrap(finding.found, WIDTH, initial_indent=head, subsequent_indent=indent) or [head.rstrip()]
        if finding.remedy:
            lines += textwrap.wrap(
                f"-> {finding.remedy}", WIDTH, initial_indent=indent, subsequent_indent=indent + "   "
            )
    counts = [(level.name.lower(), sum(f.level is level for f in findings)) for level in reversed(Level)]
    return "\n".join([*lines, "", ", ".join(f"{count} {name}" for name, count in counts)])
