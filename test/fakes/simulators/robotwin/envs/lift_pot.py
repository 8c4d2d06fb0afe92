# SPDX-License-Identifier: Apache-2.0
"""Solved when all joints are above 0.2 rad. Scenes that end in 1 are unstable, those in 2 beyond the expert."""

from pathlib import Path

import numpy as np

from envs.utils.create_actor import UnStableError

LOG = []


class lift_pot:  # noqa: N801, as RoboTwin writes it
    def setup_demo(self, now_ep_num, seed, is_test, **args):
        assert is_test and args["eval_mode"] and Path("assets/embodiments").is_dir(), "runs in its own folder"
        self.seed, self.args = seed, args
        self.joints, self.take_action_cnt, self.step_lim, self.eval_success = np.zeros(14), 0, 40, False
        LOG.append((seed, args["task_config"]))
        if seed % 10 == 1:
            raise UnStableError("the pot rolls")

    def play_once(self):
        self.plan_success = self.seed % 10 != 2
        return {"info": {"{A}": "pot"}}

    def check_success(self):
        return True

    def set_instruction(self, instruction):
        self.instruction = instruction

    def get_obs(self):
        picture = np.full((240, 320, 3), 90, np.uint8)
        views = {name: {"rgb": picture} for name in ("head_camera", "left_camera", "right_camera")}
        return {"observation": views, "joint_action": {"vector": self.joints.copy()}}

    def take_action(self, action, action_type="qpos"):
        assert action_type == "qpos" and len(action) == 14
        self.take_action_cnt += 1
        self.joints = np.asarray(action)
        self.eval_success = bool((self.joints > 0.2).all())

    def close_env(self, clear_cache=False):
        self.closed = True
