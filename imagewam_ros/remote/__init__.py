# SPDX-License-Identifier: Apache-2.0
"""Policies on the other side of a network, in both directions, by openpi's websocket protocol."""
