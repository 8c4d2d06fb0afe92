# SPDX-License-Identifier: Apache-2.0
"""The network: three image-editing backbones, their action experts, frozen encoders, checkpoints. torch only."""
