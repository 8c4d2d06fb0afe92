# SPDX-License-Identifier: Apache-2.0
"""Read a data set with the lerobot library and dump all of it: PYTHON read_with_lerobot.py DATASET OUT.npz.

Runs in lerobot's own environment, with nothing of ours in it.
"""

import sys

import numpy as np
import torch


def main(root: str, out: str) -> None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # torchvision's operators are compiled for CUDA; on a machine without it their names are enough.
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import lerobot
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    period_s = 1 / LeRobotDataset("local/set", root=root, video_backend="pyav").fps
    ahead = {"action": [0.0, period_s]}
    dataset = LeRobotDataset("local/set", root=root, video_backend="pyav", delta_timestamps=ahead)
    items = [dataset[i] for i in range(len(dataset))]
    images = {
        key: np.stack([(item[key].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for item in items])
        for key in dataset.meta.video_keys
    }
    numbers = (
        "observation.state",
        "action",
        "action_is_pad",
        "observation.stamp_ns",
        "timestamp",
        "episode_index",
        "intervention",
    )
    np.savez(
        out,
        version=np.array([getattr(lerobot, "__version__", "")]),
        fps=np.array(dataset.fps),
        episodes=np.array(dataset.num_episodes),
        frames=np.array(dataset.num_frames),
        tasks=np.array([item["task"] for item in items]),
        mean=dataset.meta.stats["action"]["mean"],
        **{name: np.stack([item[name].numpy() for item in items]) for name in numbers},
        **images,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
