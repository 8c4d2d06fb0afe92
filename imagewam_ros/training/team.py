# SPDX-License-Identifier: Apache-2.0
"""The processes that train together: started by `accelerate launch` or `torchrun`, or one alone.

Every process holds a shard of weights, running mean and optimiser (FSDP), and gathers one layer at a time
while it computes; a batch is drawn the same everywhere and each takes its part, so the result does not depend
on their number but for rounding.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.mot import Layer
from imagewam_ros.model.protocol import Context, JointBatch

PATIENCE = timedelta(hours=12)
"""How long the others wait for the first process, which alone reads and encodes."""


@dataclass(frozen=True)
class Team:
    """This process's place among `size` processes, and its device."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process reads, encodes, writes and talks."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            torch.distributed.barrier()

    def mean(self, values: Tensor) -> Tensor:
        """Mean of `values` over all processes."""
        if self.size > 1:
            values = values.to(self.device)
            torch.distributed.all_reduce(values)
        return values.cpu() / self.size


def join(cpu: bool = False) -> Team:
    """Join the processes that were started together, by accelerate's rules."""
    from accelerate import PartialState

    state = PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=PATIENCE)
    return Team(state.process_index, state.num_processes, state.device)


def shard(network: nn.Module, team: Team) -> None:
    """Move `network` to the team's device and, with several processes, leave each its shard.

    Each layer is a unit of its own, gathered around its run; what no layer holds stays gathered during a step.
    """
    if team.size == 1:
        network.to(team.device)
        return
    warnings.filterwarnings("ignore", message=".*returned a view tensor")  # nothing is changed in place
    mesh = init_device_mesh(team.device.type, (team.size,))
    for layer in [module for module in network.modules() if isinstance(module, Layer)]:
        for unit in (*layer.ahead(), layer):
            fully_shard(unit, mesh=mesh)
        register_fsdp_forward_method(layer, "run")
    fully_shard(network, mesh=mesh)
    for method in ("joint_forward", "prefill", "denoise", "plan"):
        register_fsdp_forward_method(network, method)


def gather_no_more(network: nn.Module) -> None:
    """Give up what a forward without gradients leaves gathered: the weights outside of layers."""
    if isinstance(network, FSDPModule):
        network.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on the CPU; a collective call when it is sharded."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu().contiguous()


def gathered(tensors: Mapping[str, Tensor], team: Team) -> dict[str, Tensor]:
    """The full tensors on the CPU of the process that leads, none in the others. All processes call it."""
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if team.leads:
            found[name] = full
    return found


def like(full: Tensor, place: Tensor) -> Tensor:
    """`full` sharded and placed as `place` is."""
    if isinstance(place, DTensor):
        return distribute_tensor(full.to(place.device), place.device_mesh, place.placements)
    return full.to(place.device, copy=True)


def check_shares(samples: int, targets: int, processes: int, parts: int = 1) -> None:
    """Raise ConfigError unless a batch can be cut into equal parts, `parts` of them for each process."""
    shares = processes * parts
    if samples % shares or targets % shares:
        who = f"{processes} process{'es' if processes > 1 else ''}" + (f" in {parts} parts each" if parts > 1 else "")
        raise ConfigError(
            f"{who} cannot share {samples} samples with {targets} targets equally; "
            f"choose a batch and targets that are multiples of {shares}"
        )


def part_of(batch: JointBatch, team: Team) -> JointBatch:
    """This process's samples of `batch`, on its device. Raises ConfigError when they cannot be shared equally."""
    check_shares(*_counts(batch), team.size)
    mine = share(batch, team.rank, team.size)
    return mine if team.device.type == "cpu" else _changed(mine, lambda _, tensor: tensor.to(team.device))


def share(batch: JointBatch, place: int, count: int) -> JointBatch:
    """Part `place` of `count` equal ones: as many samples with a target in each, and as many without.

    The mean of the parts' losses is the loss of the batch. Raises ConfigError when they cannot be equal.
    """
    if count == 1:
        return batch
    samples, targets = _counts(batch)
    check_shares(samples, targets, 1, count)
    with_target, without = torch.arange(samples).split((targets, samples - targets))
    rows = torch.cat([some.view(count, -1)[place] for some in (with_target, without)])
    draws = batch.action_noise.shape[0] // samples
    drawn = (rows[:, None] * draws + torch.arange(draws)).flatten()
    wanted = {"action_noise": drawn, "action_timestep": drawn}
    wanted |= dict.fromkeys(("target", "target_noise", "target_timestep"), rows[: targets // count])
    one_text = batch.context.tokens.shape[0] == 1  # for all samples
    wanted |= {"context": torch.arange(1)} if one_text else {}
    return _changed(batch, lambda name, tensor: tensor[wanted.get(name, rows).to(tensor.device)])


def _counts(batch: JointBatch) -> tuple[int, int]:
    """Samples, and how many of them have a target."""
    return batch.reference.shape[0], 0 if batch.target is None else batch.target.shape[0]


def _changed(batch: JointBatch, change: Callable[[str, Tensor], Tensor]) -> JointBatch:
    """The batch with every tensor as `change` makes it of its field's name and itself."""
    found: dict[str, object] = {}
    for entry in fields(batch):
        value = getattr(batch, entry.name)
        if isinstance(value, Tensor):
            found[entry.name] = change(entry.name, value)
        elif isinstance(value, Context):
            tokens, mask = value
            found[entry.name] = Context(change(entry.name, tokens), None if mask is None else change(entry.name, mask))
    return replace(batch, **found)  # type: ignore[arg-type]
