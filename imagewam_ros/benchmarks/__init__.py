# SPDX-License-Identifier: Apache-2.0
"""Other people's simulators behind the boundary of observation and chunk, with the settings of ImageWAM's authors."""
