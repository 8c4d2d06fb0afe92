# SPDX-License-Identifier: Apache-2.0
"""ImageWAM on dual-arm robots: hand-written rooms beside the generated msg, srv and action."""

from pkgutil import extend_path

# The checkout and the installed interfaces are two portions of one package.
__path__ = extend_path(__path__, __name__)
