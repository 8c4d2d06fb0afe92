# SPDX-License-Identifier: Apache-2.0
"""Inferring the next chunk while this one runs, against inferring between chunks."""

import threading
import time

import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.nodes.inference import InferenceThread

INFERENCE_S = EXECUTION_S = 0.2
CHUNKS = 20


class Slow:
    """A policy that takes its time and no processor."""

    def infer(self, observation, seed, running=None, delay_ns=0):
        time.sleep(INFERENCE_S)
        return seed


@pytest.fixture
def thread():
    made = InferenceThread("tiny", load_embodiment("sim_cell"), "cpu", 1)
    made.policy = Slow()
    yield made
    made.close()


def infer(thread, seed, chunks):
    done = threading.Event()
    thread.infer(None, seed, chunks.append, done.set)
    return done


@pytest.mark.slow
def test_chunks_per_second_are_nearly_twice_those_of_taking_turns(thread):
    """Theory is 2 where inference takes as long as execution."""
    chunks, start = [], time.perf_counter()
    for seed in range(CHUNKS):
        infer(thread, seed, chunks).wait()
        thread.outcome()
        time.sleep(EXECUTION_S)
    turns_s, start = time.perf_counter() - start, time.perf_counter()
    done = infer(thread, 0, chunks)
    for seed in range(CHUNKS):
        done.wait()
        thread.outcome()
        done = infer(thread, seed + 1, chunks)
        time.sleep(EXECUTION_S)
    together_s = time.perf_counter() - start
    done.wait()
    assert chunks == [*range(CHUNKS), *range(CHUNKS + 1)]
    assert turns_s / together_s >= 1.8  # 1.90 on a machine that keeps its sleeps
