"""Parallel: how the processes of a world train one model.

    ddp     each has the whole model; gradients are averaged while they are computed           (Li et al. 2020)
    fsdp    each has 1/size of every weight, of its averages and of what the optimiser knows of it; a block's weights
            are gathered when their turn comes, and its gradients sent to where they belong     (Zhao et al. 2023)

Both give every process the same step, which is that of a world of one but for rounding.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from torch import Tensor, nn

from ..denoiser import Denoiser
from ..errors import PellucidError
from ..objective import Lesson, Objective
from ..paths import Learned
from ..world import World

Kind = Literal["ddp", "fsdp"]


class Teacher(nn.Module):
    """The losses of a lesson, as a module that torch can share among processes."""

    def __init__(self, model: Denoiser, objective: Objective, seed: int) -> None:
        super().__init__()
        self.model, self.objective, self.seed = model, objective, seed

    def forward(self, lesson: Lesson) -> Tensor:
        losses: Tensor = self.objective(self.model, lesson, self.seed)
        return losses


def ddp(teacher: Teacher, world: World) -> nn.Module:
    """The same on every process, but for a learned clock, whose gradient each knows for itself (Objective.even)."""
    from torch.nn.parallel import DistributedDataParallel

    clock = list(teacher.model.path.parameters()) if isinstance(teacher.model.path, Learned) else []
    for weight in clock:
        weight.requires_grad_(False)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of a name that older torches know
        made = DistributedDataParallel(teacher, broadcast_buffers=False)
    for weight in clock:
        weight.requires_grad_(True)
    return made


def fsdp(teacher: Teacher, world: World) -> nn.Module:
    """In place: each of the network's parts becomes a group of weights that travel together, the rest is one more."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if isinstance(teacher.model.path, Learned):
        raise PellucidError("fsdp cannot share a learned path, which is a few numbers; take train.parallel=ddp.")
    mesh = init_device_mesh(teacher.model.device.type, (world.size,))
    for weight in teacher.model.parameters():
        weight.data = weight.data.contiguous()  # shares are rows as they lie in memory
    for part in parts(teacher.model.net):
        fully_shard(part, mesh=mesh)
    fully_shard(teacher, mesh=mesh)
    return teacher


KINDS: dict[Kind, Callable[[Teacher, World], nn.Module]] = {"ddp": ddp, "fsdp": fsdp}


def parts(net: nn.Module) -> Iterator[nn.Module]:
    """The blocks that a network repeats, and its other parts with weights; torch's own layers stay with the rest."""
    for child in net.children():
        if isinstance(child, nn.ModuleList):
            yield from parts(child)
        elif any(True for _ in child.parameters()) and not type(child).__module__.startswith("torch.nn"):
            yield child


def shared(teacher: Teacher, kind: Kind, world: World) -> nn.Module:
    """The teacher of this world."""
    return KINDS[kind](teacher, world) if world.size > 1 else teacher


def apart(teacher: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Inside, gradients may stay with their process: what is to come of the batch is averaged with them."""
    quiet = None if last else getattr(teacher, "no_sync", None)
    return quiet() if quiet else nullcontext()
