# SPDX-License-Identifier: Apache-2.0
"""The checks of `imagewam doctor`, one subject per module. Pure: what they judge is given to them."""
