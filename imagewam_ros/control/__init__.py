# SPDX-License-Identifier: Apache-2.0
"""Chunks to commands: timeline, curve, limiter, state machine. Pure; time is an argument."""
