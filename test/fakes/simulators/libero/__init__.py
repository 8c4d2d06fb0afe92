# SPDX-License-Identifier: Apache-2.0
"""A LIBERO of one suite and two tasks, with the interface of the real one."""
