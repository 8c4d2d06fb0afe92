# SPDX-License-Identifier: Apache-2.0
"""Closed-loop trials of a policy in the simulated cell, and what may be said about their number."""
