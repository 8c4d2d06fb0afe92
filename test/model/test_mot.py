# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.layers import Heads
from imagewam_ros.model.mot import JointMemory, KeyValueCache, attend, check_pairing, for_batch, read_mask


def heads(batch, tokens, count=4, groups=2, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, count, tokens, width, generator=generator)
    key, value = (torch.randn(batch, groups, tokens, width, generator=generator) for _ in range(2))
    return Heads(query, key, value)


def test_mask_is_the_published_table():
    mask = read_mask({"prefix": 2, "target": 1, "action": 1})
    rows = {"prefix": [1, 1, 0, 0], "target": [1, 1, 1, 0], "action": [1, 1, 0, 1]}
    assert mask.int().tolist() == [rows["prefix"], rows["prefix"], rows["target"], rows["action"]]


@pytest.mark.parametrize("masked", [False, True])
def test_cached_and_joint_memory_agree_with_one_masked_attention(masked):
    prefix, action = heads(2, 5), heads(2, 3, seed=1)
    valid = torch.tensor([[True, True, False, True, True], [True] * 5]) if masked else None
    joint, cache = JointMemory(valid), KeyValueCache((1, 2, 2, 5, 8), 3, prefix.query, valid)
    for memory in (joint, cache):
        memory.store(0, prefix.key, prefix.value)
    allowed = read_mask({"prefix": 5, "action": 3})[5:]
    mask = allowed[None, None] & (
        torch.cat([valid, torch.ones(2, 3, dtype=bool)], 1)[:, None, None] if masked else True
    )
    key, value = torch.cat([prefix.key, action.key], 2), torch.cat([prefix.value, action.value], 2)
    wanted = attend(action.query, key, value, mask.expand(2, 1, 3, 8))
    assert torch.allclose(joint.attend(0, action), wanted, atol=1e-6)
    assert torch.allclose(cache.attend(0, action), wanted, atol=1e-6)
    assert torch.allclose(cache.attend(0, action), wanted, atol=1e-6)  # the tail is rewritten each time


def test_grouped_keys_are_repeated_not_tiled():
    h = heads(1, 4)
    key, value = h.key.repeat_interleave(2, 1), h.value.repeat_interleave(2, 1)
    assert torch.allclose(attend(*h), attend(h.query, key, value), atol=1e-6)
    tiled = attend(h.query, h.key.repeat(1, 2, 1, 1), h.value.repeat(1, 2, 1, 1))
    assert not torch.allclose(attend(*h), tiled, atol=1e-2)


def test_cache_layout_and_size():
    cache = KeyValueCache((3, 1, 2, 5, 8), 4, torch.zeros(1))
    assert cache.keys.shape == (3, 1, 2, 9, 8)
    assert (cache.batch, cache.prefix_length, cache.nbytes) == (1, 5, 2 * 3 * 2 * 9 * 8 * 4)
    assert cache.fits((3, 1, 2, 5, 8), 4, torch.zeros(1))
    assert not cache.fits((3, 1, 2, 6, 8), 3, torch.zeros(1))
    assert not cache.fits((3, 1, 2, 5, 8), 4, torch.zeros(1, dtype=torch.bfloat16))


def test_sub_batch_takes_the_first_and_draws_are_adjacent():
    kept = torch.arange(3)
    assert for_batch(kept, 2).tolist() == [0, 1]
    assert for_batch(kept, 6).tolist() == [0, 0, 1, 1, 2, 2]


def test_layers_must_pair():
    check_pairing([(4, 4, 8)], [(4, 4, 8)])
    with pytest.raises(ConfigError, match="backbone has 2 layers, action expert 1"):
        check_pairing([(4, 4, 8)] * 2, [(4, 4, 8)])
    with pytest.raises(ConfigError, match="layer 0: backbone attention"):
        check_pairing([(4, 4, 8)], [(4, 2, 8)])
