# SPDX-License-Identifier: Apache-2.0
"""Our checkpoint directory: everything a robot needs to run one policy.

    config.json          schema, contract, model (variant and numbers); "untrained" where it is a base to train from
    model.safetensors    the network: video.*, action.*, proprio_encoder.*
    stats.json           statistics of state and action
    autoencoder/         diffusers
    text_encoder/ tokenizer/   transformers

An untrained base (`from_backbone`) has no statistics: it drives no robot, training takes them from its episodes.
Nothing in it is pickled. config.json is written last, so a directory with it is complete.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from imagewam_ros.core.config import build
from imagewam_ros.core.contract import Contract, statistics_hash
from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.core.json_file import write_json
from imagewam_ros.core.spaces import names
from imagewam_ros.core.stats import Statistics
from imagewam_ros.model import factory
from imagewam_ros.model.safetensors_stream import Lazy, write
from imagewam_ros.model.wam import ImageWam

SCHEMA = 1
"""Version of the directory's layout."""

FIELDS = ("state", "action")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded directory; statistics by "state" and "action", none of an untrained base."""

    model: ImageWam
    spec: factory.ModelSpec
    contract: Contract
    statistics: Mapping[str, Statistics]


def save_checkpoint(
    directory: Path,
    model: ImageWam,
    contract: Contract,
    statistics: Mapping[str, Statistics],
    dtype: torch.dtype | None = None,
) -> Contract:
    """Write the directory and return the contract as written (with the statistics' hash).

    dtype is that of the weights on disk, the model's own when None. Raises CheckpointError
    when the directory holds a checkpoint already.
    """
    if (directory / "config.json").exists():
        raise CheckpointError(f"{directory} holds a checkpoint already; choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    save_weights(directory / "model.safetensors", model.network.state_dict(), dtype)
    plain = {name: statistics[name].to_dict() for name in FIELDS}
    write_json(directory / "stats.json", plain)
    model.codec.save(directory / "autoencoder", dtype)
    model.text.save(directory, dtype)
    contract = dataclasses.replace(contract, statistics_hash=statistics_hash(plain))
    data = {"schema": SCHEMA, "contract": contract.to_dict(), "model": model.spec.to_dict()}
    write_json(directory / "config.json", data)
    return contract


def load_checkpoint(
    directory: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Checkpoint:
    """Load a directory; dtype defaults to float32 on a CPU and bfloat16 elsewhere. Raises CheckpointError.

    A base that was never trained is refused.
    """
    if untrained(directory):
        raise CheckpointError(
            f"{directory} was never trained: it is a published backbone beside an action expert that knows no robot, "
            f"and must not drive one. Train it with imagewam train --base {directory} and load that run's checkpoint"
        )
    return load_base(directory, device, dtype)


def load_base(directory: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Checkpoint:
    """Load a directory to train from: the same, but it may be untrained."""
    target = torch.device(device)
    dtype = dtype or (torch.float32 if target.type == "cpu" else torch.bfloat16)
    spec, contract = read_config(directory)
    statistics = {} if untrained(directory) else _read_statistics(directory, contract)
    network = factory.build_network(spec, "meta")
    load_weights(network, directory / "model.safetensors", target, dtype)
    _check_numbers(directory, spec, contract, statistics)
    codec = factory.load_codec(spec, directory / "autoencoder", dtype).to(target)
    codec.posterior_seed = contract.posterior_seed
    text = factory.load_text(spec, directory, contract.text_length, dtype).to(target)
    model = ImageWam(network.eval(), codec, text, spec, contract.prompt, contract.horizon)
    return Checkpoint(model, spec, contract, statistics)


def read_config(directory: Path) -> tuple[factory.ModelSpec, Contract]:
    """Read config.json alone. Raises CheckpointError."""
    path = directory / "config.json"
    data = _read_json(path)
    if data.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {data.get('schema')!r}, this version reads {SCHEMA}; update the package"
        )
    missing = [key for key in ("contract", "model") if key not in data]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}; write the checkpoint again")
    return factory.read_spec(data["model"], str(path)), build(Contract, data["contract"], f"{path}: contract")


def untrained(directory: Path) -> bool:
    """Is it a base that only training may load? Raises CheckpointError."""
    return _read_json(directory / "config.json").get("untrained") is True


def save_weights(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write tensors to a safetensors file one by one, floating ones as dtype."""
    lazy = {
        name: Lazy(
            tuple(tensor.shape),
            (dtype if tensor.is_floating_point() else None) or tensor.dtype,
            partial(torch.Tensor.detach, tensor),
        )
        for name, tensor in state.items()
    }
    write(path, lazy)


def load_weights(module: nn.Module, path: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Give a module built on "meta" its weights from a safetensors file. Raises CheckpointError."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            names = list(file.keys())
            audit({name: tuple(file.get_slice(name).get_shape()) for name in names}, module, path)
            state = {name: file.get_tensor(name).to(dtype) for name in names}
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {path}; the checkpoint is incomplete, copy or write it again") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}); copy it again") from error
    module.load_state_dict(state, strict=True, assign=True)


def audit(found: Mapping[str, tuple[int, ...]], module: nn.Module, path: Path) -> None:
    """Raise CheckpointError, naming every key, unless names and shapes are exactly the module's."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    lines = [f"missing {name}" for name in wanted if name not in found]
    lines += [f"unexpected {name}" for name in found if name not in wanted]
    lines += [
        f"{name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    if lines:
        raise CheckpointError(
            f"{path} does not fit the model: {'; '.join(lines)}. Was it made for another variant or width?"
        )


def _read_statistics(directory: Path, contract: Contract) -> dict[str, Statistics]:
    path = directory / "stats.json"
    data = _read_json(path)
    missing = [name for name in FIELDS if name not in data]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}; write the checkpoint again")
    if contract.statistics_hash != statistics_hash(data):
        raise CheckpointError(
            f"{path} is not the file that {directory / 'config.json'} was written with "
            f"(hash {statistics_hash(data)}, expected {contract.statistics_hash}); copy the whole checkpoint again"
        )
    return {name: Statistics.from_dict(data[name], f"{path}: {name}") for name in FIELDS}


def _check_numbers(
    directory: Path, spec: factory.ModelSpec, contract: Contract, statistics: Mapping[str, Statistics]
) -> None:
    """Raise CheckpointError unless weights, contract and statistics have vectors of one length."""
    padded = len(spec.network.padded_dims)
    weights = {"state": spec.network.proprio_dim - padded, "action": spec.network.action_dim - padded}
    parts = {"state": contract.state, "action": contract.action}
    for kind in FIELDS:
        promised = len(names(parts[kind])) or len(contract.joint_names)
        known = statistics[kind].mean.size if statistics else promised
        if not weights[kind] == promised == known:
            raise CheckpointError(
                f"{directory}: {kind} has {weights[kind]} numbers in model.safetensors, {promised} in the contract of "
                f"config.json and {known} in stats.json; was it imported without --robot, or are these of two runs?"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {path}; expected a checkpoint directory") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds {type(data).__name__}, expected an object")
    return data


@contextmanager
def whole_directory(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that becomes it at the end of the block; where the block fails nothing is left."""
    part = out.with_name(out.name + ".part")
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part)
        raise
    part.rename(out)
