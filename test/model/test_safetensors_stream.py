# SPDX-License-Identifier: Apache-2.0
"""Our streaming writer against the library's reader."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from imagewam_ros.model.safetensors_stream import ALIGNMENT, NAMES, Lazy, write


def lazy(tensor, dtype=None):
    return Lazy(tuple(tensor.shape), dtype or tensor.dtype, lambda: tensor)


@pytest.mark.parametrize("dtype", NAMES)
def test_every_type_is_read_back_by_the_library(tmp_path, dtype):
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    write(tmp_path / "a.safetensors", {"x": lazy(tensor)})
    found = load_file(tmp_path / "a.safetensors")["x"]
    assert found.dtype == dtype and torch.equal(found, tensor)


def test_shapes_of_every_rank_and_empty_ones(tmp_path):
    tensors = {"scalar": torch.tensor(3.0), "none": torch.zeros(0, 4), "deep": torch.randn(2, 1, 3, 2)}
    write(tmp_path / "a.safetensors", {name: lazy(tensor) for name, tensor in tensors.items()})
    found = load_file(tmp_path / "a.safetensors")
    assert set(found) == set(tensors)
    assert all(
        torch.equal(found[name], tensor) and found[name].shape == tensor.shape for name, tensor in tensors.items()
    )


def test_what_is_not_contiguous_and_what_has_gradients(tmp_path):
    base = torch.randn(3, 5)
    write(tmp_path / "a.safetensors", {"t": lazy(base.T), "p": lazy(torch.nn.Parameter(base))})
    found = load_file(tmp_path / "a.safetensors")
    assert torch.equal(found["t"], base.T) and torch.equal(found["p"], base)


def test_asked_type_wins(tmp_path):
    write(tmp_path / "a.safetensors", {"x": lazy(torch.tensor([1.0, 2.5]), torch.float16)})
    assert load_file(tmp_path / "a.safetensors")["x"].dtype == torch.float16


def test_one_tensor_at_a_time(tmp_path):
    """What a streaming writer is for: the next tensor is made after the last one was written."""
    alive, most = set(), 0

    def make(name):
        def tensor():
            nonlocal most
            alive.add(name)
            most = max(most, len(alive))
            made = torch.ones(1000)
            alive.discard(name)
            return made

        return tensor

    write(tmp_path / "a.safetensors", {n: Lazy((1000,), torch.float32, make(n)) for n in "abc"})
    assert most == 1 and len(load_file(tmp_path / "a.safetensors")) == 3


def test_nothing_appears_under_the_name_when_making_fails(tmp_path):
    def broken():
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        write(tmp_path / "a.safetensors", {"x": Lazy((1,), torch.float32, broken)})
    assert not (tmp_path / "a.safetensors").exists()


def test_header_is_aligned_and_agrees_with_the_librarys(tmp_path):
    tensors = {"a": torch.zeros(3), "bb": torch.ones(2, 2, dtype=torch.int64)}
    path = tmp_path / "a.safetensors"
    write(path, {name: lazy(tensor) for name, tensor in tensors.items()})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert (8 + length) % ALIGNMENT == 0
    ours, theirs = json.loads(content[8 : 8 + length]), save(tensors)
    header = json.loads(theirs[8 : 8 + int.from_bytes(theirs[:8], "little")])
    kinds = [{n: (v["dtype"], v["shape"]) for n, v in h.items() if n != "__metadata__"} for h in (ours, header)]
    assert kinds[0] == kinds[1]
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(tensors)
