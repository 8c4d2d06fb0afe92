# SPDX-License-Identifier: Apache-2.0
"""Demonstrations to a checkpoint: pixels, autoencoder, latents, network. Commands are in `train.py`."""
