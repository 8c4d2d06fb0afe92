# SPDX-License-Identifier: Apache-2.0
"""The processes that train together: started by `accelerate launch` or `torchrun`, or one alone.

Every process holds a shard of weights, running mean and optimiser (FSDP); a batch is drawn the
same everywhere and each takes its part, so the result does not depend on their number but for rounding.
"""

from dataclasses import dataclass, field, fields, replace
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from imagewam_ros.core.errors import ConfigError
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
    """Move `network` to the team's device and, with several processes, leave each its shard."""
    network.to(team.device)
    if team.size > 1:
        fully_shard(network, mesh=init_device_mesh(team.device.type, (team.size,)))
        for method in ("joint_forward", "prefill", "denoise", "plan"):
            register_fsdp_forward_method(network, method)


def gather_no_more(network: nn.Module) -> None:
    """Give up the full weights that a forward without gradients leaves gathered."""
    if isinstance(network, FSDPModule):
        network.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on the CPU; a collective call when it is sharded."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu().contiguous()


def like(full: Tensor, place: Tensor) -> Tensor:
    """`full` sharded and placed as `place` is."""
    full = full.to(place.device)
    if isinstance(place, DTensor):
        return distribute_tensor(full, place.device_mesh, place.placements)
    return full.clone()


def part_of(batch: JointBatch, team: Team) -> JointBatch:
    """This process's samples of `batch`, on its device: an equal part of those with and without a target.

    Raises ConfigError when they cannot be shared equally.
    """
    count, targets = batch.reference.shape[0], 0 if batch.target is None else batch.target.shape[0]
    if count % team.size or targets % team.size:
        raise ConfigError(
            f"{team.size} processes cannot share {count} samples with {targets} targets equally; "
            "choose a batch and targets that are multiples of their number"
        )
    if team.size == 1 and team.device.type == "cpu":
        return batch
    rows = torch.cat(
        [
            torch.arange(targets).chunk(team.size)[team.rank] if targets else torch.arange(0),
            torch.arange(targets, count).chunk(team.size)[team.rank] if count > targets else torch.arange(0),
        ]
    )
    draws = batch.action_noise.shape[0] // count
    drawn = (rows[:, None] * draws + torch.arange(draws)).flatten()
    wanted = {"action_noise": drawn, "action_timestep": drawn}
    wanted |= dict.fromkeys(("target", "target_noise", "target_timestep"), rows[: targets // team.size])
    parts: dict[str, object] = {}
    for entry in fields(batch):
        value = getattr(batch, entry.name)
        if isinstance(value, Tensor):
            parts[entry.name] = value[wanted.get(entry.name, rows)].to(team.device)
        elif isinstance(value, Context):
            parts[entry.name] = _context(value, rows, count, team.device)
    return replace(batch, **parts)  # type: ignore[arg-type]


def _context(context: Context, rows: Tensor, count: int, device: torch.device) -> Context:
    if context.tokens.shape[0] == count and count > 1:
        context = Context(context.tokens[rows], None if context.mask is None else context.mask[rows])
    return Context(context.tokens.to(device), None if context.mask is None else context.mask.to(device))
