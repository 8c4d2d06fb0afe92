# SPDX-License-Identifier: Apache-2.0
"""Work on several processes that is neither stuck nor silent when one of them dies."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from signal import SIG_DFL, SIGINT, signal
from typing import TypeVar

from imagewam_ros.core.errors import EpisodeError

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(one: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Yield `one(item)` of every item in order, from as many processes as `workers`. Raises what `one` raises.

    Raises EpisodeError when a process dies, which a plain pool would wait for without end.
    """
    if workers < 2:
        yield from map(one, items)
        return
    # an interrupt ends the processes at once: what they had begun is begun again
    with ProcessPoolExecutor(workers, get_context("spawn"), signal, (SIGINT, SIG_DFL)) as pool:
        try:
            yield from pool.map(one, items)
        except BrokenProcessPool:
            raise EpisodeError(
                f"one of {workers} processes died, most likely because memory ran out; "
                "give the same command again with fewer --workers"
            ) from None
