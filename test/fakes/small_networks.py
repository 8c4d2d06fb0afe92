# SPDX-License-Identifier: Apache-2.0
"""Random networks of all three backbones that a test builds in milliseconds, and inputs for them."""

import torch

from imagewam_ros.model import factory
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.ovis_u1 import OvisU1Config
from imagewam_ros.model.protocol import Context, JointBatch

HORIZON, TEXT, ROWS, COLUMNS, DIMS = 5, 4, 4, 6, 3
BACKBONES = ("flux2", "omnigen2", "ovis_u1")


def config(backbone: str, **changes):
    """Smallest numbers with two kinds of blocks where the backbone has them, and grouped keys in OmniGen2."""
    small = {
        "flux2": lambda: Flux2Config(
            **{"hidden": 32, "heads": 2, "axes": (4, 4, 4, 4), "double": 1, "single": 2, "channels": 16}
            | {"text_dim": 8, "action_dim": DIMS, "proprio_dim": DIMS, "action_hidden": 16}
            | changes
        ),
        "omnigen2": lambda: OmniGen2Config(
            **{"hidden": 24, "heads": 4, "kv_heads": 2, "axes": (2, 2, 2), "layers": 2, "refiner_layers": 1}
            | {"multiple_of": 8, "channels": 4, "text_dim": 8, "action_dim": DIMS, "proprio_dim": DIMS}
            | {"action_hidden": 16, "action_multiple_of": 8}
            | changes
        ),
        "ovis_u1": lambda: OvisU1Config(
            **{"hidden": 24, "heads": 2, "axes": (4, 4, 4), "double": 1, "single": 2, "channels": 16}
            | {"text_dim": 8, "action_dim": DIMS, "proprio_dim": DIMS}
            | changes
        ),
    }
    return small[backbone]()


def network(backbone: str, seed: int = 0, **changes) -> ImageWamNetwork:
    """A network whose weights are large enough for every input to be felt."""
    torch.manual_seed(seed)
    built = factory.build_network(factory.ModelSpec(backbone, config(backbone, **changes), None)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    return built


def batch(built: ImageWamNetwork, samples: int = 2, seed: int = 1, **changes) -> JointBatch:
    """Inputs of a training forward: one draw of noise and one target per sample."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    latents = (samples, built.config.channels, ROWS, COLUMNS)
    values = {
        "reference": draw(*latents),
        "context": Context(draw(samples, TEXT, built.config.text_dim), torch.ones(samples, TEXT, dtype=torch.bool)),
        "proprio": draw(samples, DIMS),
        "actions": draw(samples, HORIZON, DIMS),
        "action_noise": draw(samples, HORIZON, DIMS),
        "action_timestep": torch.linspace(800, 300, samples),
        "target": draw(*latents),
        "target_noise": draw(*latents),
        "target_timestep": torch.linspace(700, 400, samples),
    }
    return JointBatch(**{**values, **changes})
