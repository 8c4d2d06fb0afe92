# SPDX-License-Identifier: Apache-2.0
"""ROS 2 at the edge: convert, call, publish. The only room that imports rclpy."""
