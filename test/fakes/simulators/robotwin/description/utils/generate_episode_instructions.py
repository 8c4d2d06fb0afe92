# SPDX-License-Identifier: Apache-2.0
"""Instructions of an episode."""


def generate_episode_descriptions(task_name, episodes, max_descriptions=100):
    return [
        {"seen": [f"{task_name} seen"], "unseen": [f"lift the {e['{A}']}", f"raise the {e['{A}']}"]} for e in episodes
    ]
