# SPDX-License-Identifier: Apache-2.0
"""The exception of scenes that do not come to rest."""


class UnStableError(Exception):
    pass
