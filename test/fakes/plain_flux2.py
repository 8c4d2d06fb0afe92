# SPDX-License-Identifier: Apache-2.0
"""FLUX.2 ImageWAM the slow, plain way: one sequence, one mask matrix, no cache. The oracle of the fast path."""

import torch
from torch.nn import functional as F

from imagewam_ros.model.layers import grid_ids, latents_of, rotation, tokens_of
from imagewam_ros.model.mot import read_mask


def velocities(network, latents, context, proprio, target, target_time, actions, action_time, prefix_time):
    """Velocities (target, actions) from attention of all tokens over all under the mask rule.

    Text must be trimmed (context.mask None). Returns latents (B, C, h, w) and (B, T, D).
    """
    video, expert, config = network.video, network.action, network.config
    batch, (rows, columns) = latents.shape[0], latents.shape[2:]
    text = torch.cat([context.tokens.expand(batch, -1, -1), network.proprio_encoder(proprio)[:, None]], 1)
    index = torch.zeros(text.shape[1], 4)
    index[:, 3] = torch.arange(text.shape[1])
    steps = torch.zeros(actions.shape[1], 4)
    steps[:, 0], steps[:, 1] = 2, torch.arange(actions.shape[1])
    sizes = {"prefix": text.shape[1] + rows * columns, "target": rows * columns, "action": actions.shape[1]}
    mask = read_mask(sizes)
    tables = {
        name: rotation(ids, config.axes, config.theta)
        for name, ids in {
            "text": index,
            "reference": grid_ids(rows, columns, 10, 4),
            "target": grid_ids(rows, columns, 0, 4),
            "action": steps,
        }.items()
    }
    vectors = {"text": prefix_time, "reference": prefix_time, "target": target_time}
    times = {name: video.modulation(video.time_in(time)) for name, time in vectors.items()}
    x = {
        "text": video.txt_in(text),
        "reference": video.img_in(tokens_of(latents)),
        "target": video.img_in(tokens_of(target)),
        "action": expert.action_encoder(actions),
    }
    own = expert.modulation(action_time)
    for layer, stream in enumerate(expert.streams()):
        double = layer < config.double
        block = video.double_blocks[layer] if double else video.single_blocks[layer - config.double]
        parts, used = {}, {}
        for name in x:
            if name == "action":
                part, used[name] = stream, own.double if double else own.single
            elif double:
                part = block.text if name == "text" else block.image
                used[name] = times[name].text if name == "text" else times[name].image
            else:
                part, used[name] = block, [times[name].single]
            parts[name] = part, part.project(x[name], used[name], tables[name])
        query, key, value = (torch.cat([parts[name][1][0][i] for name in x], 2) for i in range(3))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        for name, piece in zip(x, out.split([x[n].shape[1] for n in x], 1), strict=True):
            part, (_, extra) = parts[name]
            x[name] = part.merge(x[name], piece, used[name], extra)
    head = video.final_layer
    image = head(x["target"], head.modulation(video.time_in(target_time)))
    return latents_of(image, rows, columns), expert.head(x["action"], own.head)


def rotate_by_pairs(x, ids, axes, theta):
    """Rotary embedding written as complex numbers, one pair at a time."""
    result, start = x.clone(), 0
    for axis, width in enumerate(axes):
        for pair in range(width // 2):
            angle = ids[:, axis] * theta ** (-2 * pair / width)
            i = start + 2 * pair
            turned = torch.complex(x[..., i], x[..., i + 1]) * torch.polar(torch.ones_like(angle), angle)
            result[..., i], result[..., i + 1] = turned.real, turned.imag
        start += width
    return result
