# SPDX-License-Identifier: Apache-2.0
"""Frames from real cameras. No ROS; device libraries are imported where they are used."""
