# SPDX-License-Identifier: Apache-2.0
"""A RoboTwin of one task, with the interface of the real one."""
