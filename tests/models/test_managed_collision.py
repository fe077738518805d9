"""Tables with fewer rows than ids: who has a row, who shares one, and what a checkpoint says about it."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import managed_model
import pytest
import torch
from managed_model import IDS, RATE, accumulator_R, model_of, read, rows_of, step, whole, zipf
from safetensors.torch import load_file, save_file
from torch import nn

from recsys.errors import InputError
from recsys.models.embeddings import PooledEmbeddings, SequenceEmbeddings
from recsys.models.managed_collision import ManagedCollision, folded, id_map, remapped, require_rows, resharded
from recsys.train.checkpoint import FUSED, fused_state, load_fused_state, load_model_state, model_state
from recsys.train.managed import load_pending_ids, pending_ids

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
LFU = ManagedCollision(rows=8, eviction="lfu", interval=1)


@pytest.mark.parametrize("kind", [SequenceEmbeddings, PooledEmbeddings])
def test_a_row_that_changes_hands_begins_anew(group: torch.device, kind: type[nn.Module]) -> None:
    model = model_of(group, LFU, kind)
    for _ in range(2):
        step(model, [10, 20, 30, 31, 32, 33, 34])
    step(model, [10, 20])
    assert rows_of(model, [10, 20, 30, 31, 32, 33, 34, 50]) == [0, 1, 2, 3, 4, 5, 6, 7]
    before = folded(model_state(model), "user", IDS)
    # Id 50 is read 3 times as user and 3 as friend, 6 in all, and takes a row from one of the ids that were read 4 times.
    found = step(model, [50, 50, 50])
    (row,) = set(rows_of(model, [50]))
    (lost,) = [each for each in [30, 31, 32, 33, 34] if rows_of(model, [each]) == [7]]
    assert row == lost - 30 + 2
    assert (found[0] - before[lost]).abs().min() > 1e-4, "the newcomer began with the vector of the id before it"
    # Row-wise Adagrad adds the mean square of the summed gradient of 3 users: 9, and nothing of the id before it.
    torch.testing.assert_close(accumulator_R(model)[row], torch.tensor(9.0), rtol=1e-4, atol=0)
    after = folded(model_state(model), "user", IDS)
    torch.testing.assert_close(after[50], found[0] - RATE, rtol=1e-4, atol=1e-4)  # 3 over the root of 9, in every number
    kept = [each for each in [10, 20, 30, 31, 32, 33, 34] if each != lost]
    assert torch.equal(after[kept], before[kept])


def test_ids_without_a_row_share_the_fallback_row(group: torch.device) -> None:
    model = model_of(group, LFU)
    for _ in range(3):
        step(model, [10, 20, 30, 31, 32, 33, 34])
    first = step(model, [40, 41])  # each read twice, fewer times than any id with a row
    assert torch.equal(first[0], first[1])
    assert rows_of(model, [40, 41, 59]) == [7, 7, 7]
    assert accumulator_R(model)[7] > 0, "they train their row together"


def test_with_enough_rows_every_id_has_its_own(group: torch.device) -> None:
    spec = ManagedCollision(rows=IDS + 1, eviction="lfu", interval=3)
    model = model_of(group, spec)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        step(model, torch.randint(IDS, (40,), generator=generator))
    step_ids = torch.arange(IDS)
    for _ in range(3):
        step(model, step_ids)
    rows = rows_of(model, range(IDS))
    assert len(set(rows)) == IDS
    assert IDS not in rows, "the fallback row belongs to nobody"


@pytest.mark.parametrize("eviction", ["lfu", "distance_lfu"])
@pytest.mark.parametrize("interval", [1, 5])
def test_frequent_ids_keep_their_rows(group: torch.device, eviction: str, interval: int) -> None:
    rows, often = 20, 5
    model = model_of(group, ManagedCollision(rows=rows, eviction=eviction, interval=interval))
    stream = zipf(IDS, 60, 64, torch.Generator().manual_seed(1))
    held = []
    for ids in stream:
        step(model, ids)
        held.append(rows_of(model, range(often)))
    late = held[len(held) // 2 :]
    own = sum(len({*rows_then} - {rows - 1}) == often for rows_then in late)
    moved = sum(before != after for before, after in pairwise(late))
    assert own == len(late), "one of the five most frequent ids had no row of its own"
    assert moved == 0, "one of the five most frequent ids lost its row"
    live = id_map(model_state(model), "user").row_R.tolist()
    assert sorted(live) == list(range(rows)), "a row is given out twice or lost"


def test_an_id_read_longest_ago_goes_first(group: torch.device) -> None:
    model = model_of(group, ManagedCollision(rows=4, eviction="lru", interval=1))
    for ids in ([5, 6, 7], [5, 6], [7], [5, 7], [8]):
        step(model, ids)
    assert rows_of(model, [6]) == [3]  # last read at step 2, the others at 4
    assert len({*rows_of(model, [5, 7, 8])} - {3}) == 3


def test_who_comes_late_gets_a_row_where_reads_are_forgotten(group: torch.device) -> None:
    held = {}
    for eviction in ("lfu", "distance_lfu"):
        model = model_of(group, ManagedCollision(rows=8, eviction=eviction, interval=1))
        for _ in range(5):
            step(model, [10, 20, 30, 31, 32, 33, 34])  # twice each, so 10 reads in 5 steps
        for _ in range(6):
            step(model, [50])  # twice; 10 / 6 steps since the last read is less
        held[eviction] = rows_of(model, [50])[0]
    assert held["lfu"] == 7, "an id without a row has no count that could grow"
    assert held["distance_lfu"] != 7


def test_an_uncounted_feature_claims_no_row(group: torch.device) -> None:
    model = model_of(group, LFU, uncounted=("user",))
    step(model, [40, 41, 42, 43], friend=[10, 11])
    assert len({*rows_of(model, [10, 11])} - {7}) == 2
    assert set(rows_of(model, [40, 41, 42, 43])) == {7}


@pytest.mark.parametrize("kind", [SequenceEmbeddings, PooledEmbeddings])
@pytest.mark.parametrize("spec", [LFU, None])
def test_the_folded_table_is_what_evaluation_reads(
    group: torch.device, kind: type[nn.Module], spec: ManagedCollision | None
) -> None:
    model = model_of(group, spec, kind)
    for ids in zipf(IDS, 10, 32, torch.Generator().manual_seed(2)):
        step(model, ids)
    state, pending = whole(model), pending_ids(model)
    model.eval()
    with torch.no_grad():
        for _ in range(3):
            found = read(model, torch.arange(IDS)).clone()
    # By rows TorchRec divides a mean by its number of ids plus 1e-6; an unpooled vector is the same bit for bit.
    exact = kind is SequenceEmbeddings or spec is None
    torch.testing.assert_close(found, folded(state, "user", IDS), atol=0, rtol=0 if exact else 2e-6)
    assert all(torch.equal(tensor, state[name]) for name, tensor in whole(model).items()), "evaluation changed the model"
    assert all(torch.equal(tensor, pending[name]) for name, tensor in pending_ids(model).items())


@pytest.mark.parametrize("eviction", ["lfu", "lru", "distance_lfu"])
@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_resumes_exactly_in_the_middle_of_an_interval(
    group: torch.device, tmp_path: Path, eviction: str, stop: int
) -> None:
    spec = ManagedCollision(rows=8, eviction=eviction, interval=4)
    sizes = [4, 40, 3, 60, 20, 8, 60, 60, 16]  # the first batch is small: TorchRec's own buffer would drop ids
    stream = [ids[:size] for ids, size in zip(zipf(IDS, len(sizes), 60, torch.Generator().manual_seed(3)), sizes, strict=True)]
    stream[6:] = [IDS - 1 - ids for ids in stream[6:]]  # the rare become frequent, so that the map changes
    undisturbed, first = model_of(group, spec), model_of(group, spec)
    for ids in stream:
        step(undisturbed, ids)
    for ids in stream[:stop]:
        step(first, ids)
    saved = {f"model/{n}": t for n, t in model_state(first).items()} | {f"fused/{n}": t for n, t in fused_state(first).items()}
    save_file(saved | {f"pending/{n}": t for n, t in pending_ids(first).items()}, tmp_path / "state")

    loaded, second = load_file(tmp_path / "state"), model_of(group, spec, seed=9)
    below = {
        part: {name.removeprefix(part): tensor for name, tensor in loaded.items() if name.startswith(part)}
        for part in ("model/", "fused/", "pending/")
    }
    load_model_state(second, below["model/"])
    load_fused_state(second, below["fused/"])
    load_pending_ids(second, below["pending/"])
    for ids in stream[stop:]:
        step(second, ids)
    expected, found = whole(undisturbed), whole(second)
    assert expected.keys() == found.keys()
    assert not [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])]
    assert rows_of(undisturbed, range(IDS)) != rows_of(first, range(IDS)), "the map did not change after the stop"


def test_another_number_of_processes_keeps_every_ids_vector(group: torch.device) -> None:
    model = model_of(group, ManagedCollision(rows=20, eviction="lfu", interval=1))
    for _ in range(2):
        step(model, range(12))
    state = whole(model)
    weights, accumulator = (next(n for n in state if n.endswith(end)) for end in ("user.weight", "user.momentum1"))
    moved = resharded(state, 3)
    row_I, there_I = remapped(state, "user", IDS), remapped(moved, "user", IDS)
    assert torch.equal(moved[weights][there_I[:12]], state[weights][row_I[:12]])
    assert torch.equal(moved[accumulator][there_I[:12]], state[accumulator][row_I[:12]])
    # Blocks of 7, 7 and 6 rows: ids of remainder 0 are in rows 0 to 5, and their fallback row is 6, then 13, then 19.
    assert there_I[:12].tolist() == [0, 7, 14, 1, 8, 15, 2, 9, 16, 3, 10, 17]
    assert there_I[[12, 13, 14]].tolist() == [6, 13, 19]
    for row in (6, 13, 19):
        assert torch.equal(moved[weights][row], state[weights][19])
    again = resharded(moved, 1)
    assert torch.equal(folded(again, "user", IDS)[:12], folded(state, "user", IDS)[:12])
    torch.testing.assert_close(folded(again, "user", IDS), folded(state, "user", IDS))
    load_model_state(model, {name: tensor for name, tensor in again.items() if not name.startswith(FUSED)})
    model.eval()
    assert torch.equal(read(model, range(12)), folded(state, "user", IDS)[:12])


def test_too_few_rows_for_the_processes_are_named() -> None:
    require_rows("user", 8, 4)
    with pytest.raises(InputError, match=r"tables\.user\.rows 9 is too few for 4 processes"):
        require_rows("user", 9, 4)  # blocks of three leave the last process none


def test_two_processes_train_and_resume_what_one_goes_on_with(group: torch.device, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", managed_model.__file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([*command, tmp_path], capture_output=True, text=True, env=environment, timeout=180)
    assert run.returncode == 0, run.stderr[-4000:]
    for kind in (SequenceEmbeddings, PooledEmbeddings):
        saved = load_file(tmp_path / kind.__name__)
        pending = {name.removeprefix("pending/"): t for name, t in saved.items() if name.startswith("pending/")}
        state = {name: tensor for name, tensor in saved.items() if not name.startswith("pending/")}
        both = id_map(state, "user")
        assert both.end_P.tolist() == [7, 13]
        live = both.raw_R[both.raw_R < IDS]
        assert len(live) == 11, "all rows but the two fallback rows are in use"
        even = remapped(state, "user", IDS)[live] < 7
        assert torch.equal(even, live % 2 == 0)
        one = resharded(state, 1)
        assert torch.equal(folded(one, "user", IDS)[live], folded(state, "user", IDS)[live])
        model = model_of(group, ManagedCollision(rows=13, eviction="distance_lfu", interval=2), kind)
        load_model_state(model, {name: tensor for name, tensor in one.items() if not name.startswith(FUSED)})
        load_fused_state(model, {name.removeprefix(FUSED): t for name, t in one.items() if name.startswith(FUSED)})
        load_pending_ids(model, pending)
        assert len(pending["user/ids"]) == 2 * 2 * 24, "one step of an interval of two, two features, two processes"
        assert all(torch.equal(tensor, pending[name]) for name, tensor in pending_ids(model).items())
        model.eval()
        torch.testing.assert_close(read(model, range(IDS)).clone(), folded(one, "user", IDS), atol=0, rtol=2e-6)
        model.train()
        for ids in zipf(IDS, 4, 24, torch.Generator().manual_seed(7)):
            step(model, ids)
        assert (accumulator_R(model) >= 0).all()
        assert len(set(rows_of(model, range(4)))) == 4
