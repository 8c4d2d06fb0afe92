# SPDX-License-Identifier: Apache-2.0
"""The waist that live and offline share: values, robots, contracts. numpy only."""
