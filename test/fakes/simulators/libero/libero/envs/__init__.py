# SPDX-License-Identifier: Apache-2.0
"""An environment that is done when the tool has moved by 0.3 m and the gripper is closed."""

import numpy as np

LOG = []


class OffScreenRenderEnv:
    def __init__(self, bddl_file_name, camera_heights, camera_widths):
        self.size, self.file = (camera_heights, camera_widths), bddl_file_name
        self.actions, self.x, self.closed = [], 0.0, False
        LOG.append(self)

    def seed(self, seed):
        self.seeded = seed

    def reset(self):
        self.actions, self.x, self.closed = [], 0.0, False
        return self._seen()

    def set_init_state(self, state):
        self.state = state
        return self._seen()

    def step(self, action):
        assert len(action) == 7 and abs(action[6]) in (0.0, 1.0)
        self.actions.append(list(action))
        self.x += 0.05 * action[0]
        self.closed = action[6] > 0
        done = self.x > 0.3 and self.closed
        return self._seen(), float(done), done, {}

    def close(self):
        self.ended = True

    def _seen(self):
        picture = np.zeros((*self.size, 3), np.uint8)
        picture[0, 0] = 255  # the corner that half a turn brings to the other end
        return {
            "agentview_image": picture,
            "robot0_eye_in_hand_image": picture // 2,
            "robot0_eef_pos": np.array([self.x, 0.0, 1.0]),
            "robot0_eef_quat": np.array([np.sin(0.25), 0.0, 0.0, np.cos(0.25)]),
            "robot0_gripper_qpos": np.array([0.04, -0.04]),
            "robot0_joint_pos": np.zeros(7),
        }
