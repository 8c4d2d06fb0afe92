# SPDX-License-Identifier: Apache-2.0
"""A human's hands as action chunks for the same executor that plays the policy's. No ROS, no torch."""
