# SPDX-License-Identifier: Apache-2.0
"""What a recording counts of each topic."""

from dataclasses import dataclass

COUNTS_KEY = "imagewam_recording"
"""Key of the bag's custom data that holds the counts of `Recording.report` as JSON."""


@dataclass
class Counts:
    """One topic: messages received, written, dropped because the disk was too slow, and lost before us.

    longest_gap_ns is the longest time between two messages, in the clock of `put`.
    """

    received: int = 0
    written: int = 0
    dropped: int = 0
    lost: int = 0
    bytes: int = 0
    longest_gap_ns: int = 0
    first_ns: int = 0
    last_ns: int = 0
    last_sequence: int = 0

    def arrive(self, log_ns: int, sequence: int) -> None:
        """Count one arrival. sequence counts the publisher's messages from 1, 0 where it is not known."""
        if self.received:
            self.longest_gap_ns = max(self.longest_gap_ns, log_ns - self.last_ns)
        else:
            self.first_ns = log_ns
        if sequence and self.last_sequence and sequence > self.last_sequence:
            self.lost += sequence - self.last_sequence - 1
        self.received += 1
        self.last_ns, self.last_sequence = log_ns, sequence

    def to_dict(self) -> dict[str, float]:
        """Return the counts with the mean rate in Hz and the longest gap in s."""
        elapsed_s = (self.last_ns - self.first_ns) / 1e9
        names = ("received", "written", "dropped", "lost", "bytes")
        return {
            **{name: getattr(self, name) for name in names},
            "rate_hz": round((self.received - 1) / elapsed_s, 3) if elapsed_s > 0 else 0.0,
            "longest_gap_s": round(self.longest_gap_ns / 1e9, 6),
        }
