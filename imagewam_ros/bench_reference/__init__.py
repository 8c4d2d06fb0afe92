# SPDX-License-Identifier: Apache-2.0
"""The authors' schedule of one chunk, written from its description, to measure ours against on the same weights."""
