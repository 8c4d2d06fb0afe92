# SPDX-License-Identifier: Apache-2.0
"""Episodes on disk to training samples: MCAP bags, frames, data sets. numpy only: no ROS, no torch."""
