"""A small model with an id map, and a run of it in several processes: `torch.distributed.run managed_model.py <folder>`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from recsys.batch import Ids
from recsys.models.embeddings import PooledEmbeddings, SequenceEmbeddings, TableShape
from recsys.models.managed_collision import ManagedCollision, folded, remapped
from recsys.train.checkpoint import FUSED, fused_state, load_fused_state, load_model_state, model_state
from recsys.train.distributed import place, process_group
from recsys.train.managed import load_pending_ids, pending_ids

IDS, DIM, RATE = 60, 4, 0.1


class Model(nn.Module):
    """A table with a map, one without, and the history that shares the first."""

    def __init__(self, kind: type[nn.Module], spec: ManagedCollision | None, uncounted: tuple[str, ...] = ()):
        super().__init__()
        users = TableShape("user", IDS, DIM, ("user", "friend"), spec, uncounted)
        self.embeddings = kind([users, TableShape("item", IDS, DIM, ("item",))], 1.0)


def model_of(
    group: torch.device, spec: ManagedCollision | None, kind: type[nn.Module] = SequenceEmbeddings, *, seed: int = 0,
    uncounted: tuple[str, ...] = (),
) -> nn.Module:  # fmt: skip
    torch.manual_seed(seed)
    return place(Model(kind, spec, uncounted), group, learning_rate=RATE)


def one_each(ids: Sequence[int] | Tensor) -> Ids:
    value_N = torch.as_tensor(ids, dtype=torch.int64)
    return Ids(value_N, torch.ones_like(value_N))


def read(model: nn.Module, user: Sequence[int] | Tensor, friend: Sequence[int] | Tensor | None = None) -> Tensor:
    """The users' vectors; the features are given in another order than the tables'."""
    ids = one_each(user)
    friends = ids if friend is None else Ids(torch.as_tensor(friend), torch.zeros_like(ids.length_B))
    if friend is not None:
        friends.length_B[0] = len(friend)
    found = model.embeddings({"item": one_each(ids.value_N % IDS), "friend": friends, "user": ids})
    assert list(found) == ["item", "friend", "user"]
    return found["user"]


def step(model: nn.Module, user: Sequence[int] | Tensor, friend: Sequence[int] | Tensor | None = None) -> Tensor:
    """Read and train with a gradient of 1 on every number; return what was read."""
    torch.manual_seed(sum(user) if friend is None else 0)
    found = read(model, user, friend)
    found.sum().backward()
    return found.detach()


def whole(model: nn.Module) -> dict[str, Tensor]:
    return model_state(model) | {FUSED + name: tensor for name, tensor in fused_state(model).items()}


def rows_of(model: nn.Module, ids: Sequence[int]) -> list[int]:
    return remapped(model_state(model), "user", IDS)[list(ids)].tolist()


def accumulator_R(model: nn.Module) -> Tensor:
    return next(tensor for name, tensor in fused_state(model).items() if "user" in name)


def zipf(num_ids: int, steps: int, batch: int, generator: torch.Generator) -> list[Tensor]:
    share_I = 1 / torch.arange(1, num_ids + 1, dtype=torch.float64)
    return list(torch.multinomial(share_I, steps * batch, replacement=True, generator=generator).split(batch))


def run(folder: Path, device: torch.device) -> None:
    """Stop and resume within an interval, compare evaluation with the folded table, and leave the state in `folder`."""
    for kind in (SequenceEmbeddings, PooledEmbeddings):
        spec = ManagedCollision(rows=13, eviction="distance_lfu", interval=2)
        stream = zipf(IDS, 9, 24, torch.Generator().manual_seed(dist.get_rank()))
        undisturbed, first, second = (model_of(device, spec, kind, seed=seed) for seed in (0, 0, 5))
        for ids in stream:
            step(undisturbed, ids)
        for ids in stream[:5]:
            step(first, ids)
        load_model_state(second, model_state(first))
        load_fused_state(second, fused_state(first))
        load_pending_ids(second, pending_ids(first))
        for ids in stream[5:]:
            step(second, ids)
        expected, found = whole(undisturbed), whole(second)
        assert not [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])]
        undisturbed.eval()
        with torch.no_grad():
            vector_ID = read(undisturbed, torch.arange(IDS)).clone()
        rtol = 0 if kind is SequenceEmbeddings else 2e-6
        torch.testing.assert_close(vector_ID, folded(expected, "user", IDS), atol=0, rtol=rtol)
        pending = {f"pending/{name}": tensor for name, tensor in pending_ids(undisturbed).items()}
        if dist.get_rank() == 0:
            save_file(expected | pending, folder / kind.__name__)


if __name__ == "__main__":
    torch.cuda.is_available = lambda: False  # one machine's GPUs are not shared by the processes of a test
    with process_group() as device:
        run(Path(sys.argv[1]), device)
