# SPDX-License-Identifier: Apache-2.0
"""Processor time of other processes, from the kernel."""

import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def busy_s(pid: int) -> float:
    """Return the processor time of a process so far, in s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
