# SPDX-License-Identifier: Apache-2.0
"""Tasks and their initial states."""

from typing import NamedTuple

import numpy as np


class Task(NamedTuple):
    name: str
    language: str
    problem: str
    problem_folder: str
    bddl_file: str
    init_states_file: str


class Spatial:
    n_tasks = 2

    def get_task(self, i):
        name = ("push_the_button", "open_the_drawer")[i]
        return Task(name, name.replace("_", " "), "Libero", "libero_spatial", f"{name}.bddl", f"{name}.pruned_init")

    def get_task_init_states(self, i):
        return np.arange(6.0).reshape(3, 2) + 100 * i


def get_benchmark_dict():
    return {"libero_spatial": Spatial}
