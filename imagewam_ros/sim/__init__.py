# SPDX-License-Identifier: Apache-2.0
"""The simulated cell: the robot's URDF in MuJoCo, its cameras, tasks, scripted experts and controllers."""
