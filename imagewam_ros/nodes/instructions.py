# SPDX-License-Identifier: Apache-2.0
"""The instruction that the policy follows. A change costs one text encode and stalls nothing.

The new text is encoded on the inference thread after the chunk that is being made; callbacks go on,
that chunk is published, and the change happens when the encode is over.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future as Encoded
from typing import Any, NamedTuple

from rclpy.task import Future

from imagewam_ros.core.errors import ConfigError, GraphError, ImageWamError

LONGEST = 2000
"""Characters; encoders read the first few hundred words, and whoever can call the service could send megabytes."""


class _Change(NamedTuple):
    text: str
    seed: int
    encoded: "Encoded[None]"
    done: Any  # rclpy's Future is generic on newer distributions only


class Instructions:
    """text is the present instruction, empty for none, and number counts the changes."""

    def __init__(self, encode: Callable[[str], "Encoded[None]"], changed: Callable[[], None]) -> None:
        """`encode(text)` begins an encode, after whose end `settle` must be called; `changed` is called on a change."""
        self.text, self.number = "", 0
        self._next_seed = 0
        self._encode, self._changed = encode, changed
        self._changes: deque[_Change] = deque()

    @property
    def changing(self) -> bool:
        """Whether an encode is under way."""
        return bool(self._changes)

    def next_seed(self) -> int:
        """Return the seed of the next chunk; they count from the one that came with the instruction."""
        seed, self._next_seed = self._next_seed, self._next_seed + 1
        return seed

    def begin(self, text: str, seed: int) -> None:
        """Change the instruction and wait for it. Raises what the encode raises."""
        text = plain_text(text)
        if text:
            self._encode(text).result()
        self._change(text, seed)

    async def set(self, text: str, seed: int) -> int:
        """Change the instruction, to none at once; `seed` is that of its first chunk. Returns its number.

        Raises what the encode raises, and GraphError when it was changed to none meanwhile.
        """
        text = plain_text(text)
        if not text:
            self._forget()
            return self._change(text, seed)
        change = _Change(text, seed, self._encode(text), Future())
        self._changes.append(change)
        error, number = await change.done
        if error is not None:
            raise error
        return int(number)

    def rest(self, number: int) -> None:
        """Follow nothing any more, if the instruction is still the one of this number."""
        if number == self.number:
            self._change("", self._next_seed)

    def _forget(self) -> None:
        """Give up changes under way: whoever says stop last is obeyed."""
        while self._changes:
            text, _, _, done = self._changes.popleft()
            done.set_result((GraphError(f"the instruction was cleared before {text!r} was encoded; set it again"), 0))

    def settle(self) -> None:
        """Change to what has been encoded."""
        while self._changes and self._changes[0].encoded.done():
            text, seed, encoded, done = self._changes.popleft()
            error = encoded.exception()
            if error is not None and not isinstance(error, ImageWamError):  # such as a GPU without memory
                error = GraphError(f"{text!r} could not be encoded: {type(error).__name__}: {error}")
            done.set_result((error, self.number if error else self._change(text, seed)))

    def _change(self, text: str, seed: int) -> int:
        self.text, self.number, self._next_seed = text, self.number + 1, seed
        self._changed()
        return self.number


def plain_text(text: str) -> str:
    """Return an instruction on one line without surplus spaces. Raises ConfigError."""
    if len(text) > LONGEST:
        raise ConfigError(f"an instruction of {len(text)} characters is too long; say it in at most {LONGEST}")
    return " ".join(text.split())
