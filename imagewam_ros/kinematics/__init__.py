# SPDX-License-Identifier: Apache-2.0
"""Kinematics and distances on the robot's URDF. numpy, pinocchio and coal only."""
