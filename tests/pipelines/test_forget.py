"""`recsys forget` on a small simulated log: afterwards nothing of the workspace knows the users, and the rest still fits."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from pipelines import stages
from pipelines.forget import run as forget_run
from pipelines.forget.carry import carried
from pipelines.forget.plain import Plain
from pipelines.forget.plan import Method
from pipelines.forget.probe import gains, probe
from pipelines.forget.run import Request, forget
from pipelines.forget.unlearn import JOBS, Unlearning, _teacher, dampen, delete_rows, scores, unlearn
from pipelines.forget.without import Without
from pipelines.models import retrieval_graph
from pipelines.workspace import Workspace, check_lineage, config_path, open_dataset
from recsys.columns import TRAIN, UNKNOWN_ID
from recsys.config import RunConfig, load
from recsys.continual.distil import Distil
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.simulate import Simulation, simulate

SMALL = (
    "retriever.encoder={kind: sasrec, dim: 16, blocks: 1, heads: 1, dropout: 0.0, feed_forward: 2}",
    "retriever.fit={epochs: 2, batch_size: 32, learning_rate: 3.0e-3, embedding_learning_rate: 0.05}",
    "ranker.dim=8", "ranker.fit={epochs: 1, batch_size: 256}",
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, group: torch.device) -> tuple[RunConfig, Path]:
    """A raw log and a trained workspace, in a folder of both."""
    folder = tmp_path_factory.mktemp("forget")
    simulate(Simulation(users=150, items=60, events=9_000, days=6, seed=3), folder / "raw")
    config, workspace = load(config_path("demo"), *SMALL), Workspace(folder / "run")
    stages.prepare(config, folder / "raw", workspace)
    from pipelines.train import train_ranker, train_retriever

    class Quiet:
        def step(self, job: str, **_: object) -> None: ...
        def validated(self, job: str, **_: object) -> None: ...

    data = Dataset(workspace.dataset)
    for part, train in (("retriever", train_retriever), ("ranker", train_ranker)):
        train(config, data, workspace.checkpoint(part), device=group, progress=Quiet())
    return config, folder


@pytest.fixture
def run(made: tuple[RunConfig, Path], tmp_path: Path, one_group: None) -> Request:
    """A copy of both, and the request to forget three users."""
    config, folder = made
    shutil.copytree(folder, tmp_path / "copy")
    data = Dataset(folder / "run" / "dataset")
    users = [str(data.user_ids[row]) for row in np.flatnonzero(data.train_length_U >= 4)[:3]]
    return Request(
        config, tmp_path / "copy" / "raw", tmp_path / "copy" / "run", users, "dampen", uri=f"sqlite:///{tmp_path}/m.db"
    )


@pytest.mark.parametrize("method", ["dampen", "retrain"])
def test_nothing_knows_the_users_and_the_rest_still_fits(run: Request, method: Method) -> None:
    run = replace(run, method=method)
    before = Dataset(run.root / "dataset")
    was = load_file(run.root / "ranker" / "model.safetensors")
    receipt = forget(run)
    workspace = Workspace(run.root)
    data = open_dataset(workspace, run.config)
    assert not set(run.users) & set(data.user_ids)
    log = pl.read_parquet(run.raw / "events", columns=["user_id"])["user_id"].cast(pl.String)
    assert not log.is_in(list(run.users)).any()
    for part in ("retriever", "ranker"):
        check_lineage(workspace, part, data, run.config)
    assert retrieval_graph(run.config, data, load_file(run.root / "retriever" / "model.safetensors"))
    table = next(name for name in was if name.endswith(".user.weight"))
    now = load_file(run.root / "ranker" / "model.safetensors")[table]
    assert len(now) == len(was[table]) - len(run.users) == data.num_users == before.num_users - len(run.users)
    assert json.loads((run.root / "forgotten.json").read_text()) == {"users": sorted(run.users)}
    assert not (run.root / ".forget").exists()
    text = next((run.root / "forgotten").glob("*.md")).read_text()
    assert f"3 users forgotten, by {method}" in text
    assert not any(f"{user}\n" in text or f" {user} " in text for user in run.users)
    assert receipt.measured["retriever"]["others"]["before"] > 0
    assert sum(receipt.raw.values()) > 3


def test_a_run_that_was_stopped_goes_on_and_no_other_may_come_between(run: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(forget_run, "_swap", stopped)
        with pytest.raises(KeyboardInterrupt):
            forget(run)
    other = Request(run.config, run.raw, run.root, [*run.users, "u0"], "dampen")
    with pytest.raises(InputError, match="stopped half-way: finish it first"):
        forget(other)
    receipt = forget(run)
    assert sum(receipt.raw.values()) > 3  # counted when it was done, not at the second attempt
    assert not set(run.users) & set(open_dataset(Workspace(run.root), run.config).user_ids)


def test_who_is_nowhere_is_said_before_anything_is_touched(run: Request) -> None:
    with pytest.raises(InputError, match="none of the 1 users is in"):
        forget(Request(run.config, run.raw, run.root, ["nobody"], "retrain"))
    assert not (run.root / ".forget").exists()
    assert not (run.root / "forgotten.json").exists()


def test_who_was_forgotten_before_stays_out_though_rows_of_theirs_came_later(run: Request) -> None:
    """Of the dataset that is built when the next user is forgotten, and of the one that `recsys prepare` makes."""
    first, second, _ = run.users
    file = min((run.raw / "events").rglob("*.parquet"))
    late = pl.concat([pl.read_parquet(each) for each in sorted((run.raw / "events").rglob("*.parquet"))])
    forget(replace(run, users=[first]))
    file.parent.with_name("day=2026-01-09").mkdir()
    theirs = late.filter(pl.col("user_id").cast(pl.String) == first).with_columns(pl.col("time_ms") + 8 * 86_400_000)
    theirs.write_parquet(file.parent.with_name("day=2026-01-09") / file.name)
    forget(replace(run, users=[second]))
    assert not {first, second} & set(Dataset(run.root / "dataset").user_ids)
    stages.prepare(run.config, run.raw, Workspace(run.root), anew=True)
    assert not {first, second} & set(Dataset(run.root / "dataset").user_ids)


@pytest.mark.parametrize("part", ["retriever", "ranker"])
@pytest.mark.parametrize("who", ["nobody", "a user of the test days"])
def test_who_was_never_trained_on_leaves_the_model_as_it_is(made: tuple[RunConfig, Path], part: str, who: str) -> None:
    config, folder = made
    data = Dataset(folder / "run" / "dataset")
    state = load_file(folder / "run" / part / "model.safetensors")
    never = np.array([row for row in np.flatnonzero(data.length_U) if not _rows_of(data, row)])
    forget_F, unseen = (never[:0] if who == "nobody" else never[:1]), np.flatnonzero(data.train_length_U >= 3)[:20]
    for after, done in (
        dampen(config, data, part, state, forget_F), unlearn(config, data, part, state, forget_F, unseen)
    ):  # fmt: skip
        assert done["trained_on"] == 0
        wanted = delete_rows(state, forget_F)
        assert all(torch.equal(after[name], wanted[name]) for name in state)


def _rows_of(data: Dataset, user: int) -> bool:
    """Whether a model was trained on anything of theirs."""
    return bool(data.train_length_U[user] or (data.examples["user"][data.example_rows(TRAIN)] == user).any())


def test_dampening_takes_batches_of_as_many_users_for_both_importances(made: tuple[RunConfig, Path]) -> None:
    """The mean gradient of few users is longer by chance alone, and would pass for importance to the forgotten: users like all
    others are not what hundreds of times more numbers matter to."""
    config, folder = made
    data = Dataset(folder / "run" / "dataset")
    state = load_file(folder / "run" / "retriever" / "model.safetensors")
    user_U = np.random.default_rng(1).permutation(np.flatnonzero(data.train_length_U >= 3))
    shares = [
        done["dampened"] / done["numbers"]
        for done in (dampen(config, data, "retriever", state, np.sort(user_U[:number]))[1] for number in (3, 64))
    ]
    assert shares[0] < 0.05, shares


def test_what_the_config_trains_no_more_goes_and_what_nobody_knows_is_listed(run: Request) -> None:
    shutil.copytree(run.root / "ranker", run.root / "policy")
    (run.root / "sweep" / "wide").mkdir(parents=True)
    (run.root / ".dataset.999999999.tmp").mkdir()
    (run.root / "live").mkdir()
    receipt = forget(run)
    assert not (run.root / "policy").exists()
    assert not (run.root / ".dataset.999999999.tmp").exists()
    assert {"policy", ".dataset.999999999.tmp"} <= set(receipt.deleted)
    assert [each for each in receipt.left if each.startswith(str(run.root))] == [
        f"{run.root / 'sweep'}: may have been made with the users; delete it, or make it again"
    ]


def test_rows_move_with_their_ids_and_back(run: Request) -> None:
    old = Dataset(run.root / "dataset")
    state = load_file(run.root / "ranker" / "model.safetensors")
    forget(run)
    new = Dataset(run.root / "dataset")
    there = carried(state, old, new)
    table = next(name for name in state if name.endswith(".user.weight"))
    for row in (2, new.num_users - 1):
        assert torch.equal(there[table][row], state[table][old.user_ids.index(new.user_ids[row])])
    gone = old.user_ids.index(next(iter(run.users)))
    assert torch.equal(carried(there, new, old)[table][gone], state[table][UNKNOWN_ID])


def test_hidden_users_are_trained_on_nowhere(made: tuple[RunConfig, Path]) -> None:
    data = Dataset(made[1] / "run" / "dataset")
    hidden = np.flatnonzero(data.train_length_U)[:5]
    rest = Without(data, hidden)
    assert rest.events(TRAIN)[1][hidden].sum() == 0
    assert rest.train_count_I.sum() == data.train_count_I.sum() - data.train_length_U[hidden].sum()
    assert not np.isin(rest.examples["user"][rest.example_rows(TRAIN)], hidden).any()
    assert np.isin(data.examples["user"][data.example_rows(TRAIN)], hidden).any()


@pytest.mark.parametrize("part", ["retriever", "ranker"])
def test_plain_losses_add_up_and_have_a_gradient_for_every_table(made: tuple[RunConfig, Path], part: str) -> None:
    config, folder = made
    data = Dataset(folder / "run" / "dataset")
    state = load_file(folder / "run" / part / "model.safetensors")
    plain, found = Plain(JOBS[part](config, data, CPU), state), probe(config, data, part)
    assert {name: tuple(tensor.shape) for name, tensor in plain.state().items()} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }
    user_U = np.flatnonzero(data.train_length_U)[:6]
    batch, sizes, _ = found.rows(user_U, (TRAIN,), known=True)
    sum_S, count_S = plain.losses(batch, [size for size in sizes if size])
    whole, count = plain.losses(batch, [batch.rows])
    assert sum_S.sum().item() == pytest.approx(whole.item(), rel=1e-4)
    assert count_S.sum().item() == count.item()
    gradient = plain.gradient(batch)
    assert all(gradient[name].abs().sum() > 0 for name in gradient if "embeddings" in name)
    assert len(gains(plain, found, user_U, (TRAIN,), known=True)[1]) == sum(size > 0 for size in sizes)


@pytest.mark.parametrize("part", ["retriever", "ranker"])
def test_the_old_model_pulls_nowhere_at_itself_and_back_from_elsewhere(made: tuple[RunConfig, Path], part: str) -> None:
    """The gradient of its answers is 0 where the model gives them already; from changed numbers a step leads back."""
    config, folder = made
    data = Dataset(folder / "run" / "dataset")
    state = load_file(folder / "run" / part / "model.safetensors")
    job, spec = JOBS[part](config, data, CPU), Distil(weight=1.0, temperature=1.0)
    others = next(iter(job.loader.epoch(0)))

    def pull(now: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        plain = Plain(job, now, _teacher(config, data, part, state, spec))
        both, labels = (
            torch.autograd.grad(loss, list(plain.parameters.values()), allow_unused=True)
            for loss in (plain.kept(others), Plain.kept(_untaught(plain), others))
        )
        return {
            name: a - b for name, a, b in zip(plain.parameters, both, labels, strict=True) if a is not None and b is not None
        }

    assert max(grad.abs().max().item() for grad in pull(state).values()) < 1e-5
    moved = {name: tensor * 1.3 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    back = pull(moved)
    assert sum((grad * (moved[name] - state[name])).sum().item() for name, grad in back.items()) > 0


def _untaught(plain: Plain) -> Plain:
    """The same parameters with the labels alone."""
    same = copy.copy(plain)
    same._taught = plain.learner
    return same


@pytest.mark.parametrize("part", ["retriever", "ranker"])
def test_unlearning_raises_the_loss_of_the_forgotten(made: tuple[RunConfig, Path], part: str) -> None:
    config, folder = made
    data = Dataset(folder / "run" / "dataset")
    state = load_file(folder / "run" / part / "model.safetensors")
    user_U = np.flatnonzero(data.train_length_U >= 3)
    known = scores(config, data, part, state, user_U, (TRAIN,), known=False)[1]
    forget, unseen = user_U[np.argsort(-known)[:8]], user_U[np.argsort(known)[:20]]  # who was known best, and least
    forget, unseen = np.sort(forget), np.sort(unseen)
    after, done = unlearn(config, data, part, state, forget, unseen, Unlearning(passes=2, learning_rate=1e-2, retain=0.1))
    assert 1 <= done["passes"] <= 2
    assert {name: tensor.shape for name, tensor in after.items()} == {name: tensor.shape for name, tensor in state.items()}
    was, now = (
        scores(config, data, part, each, forget, (TRAIN,), known=False)[1] for each in (delete_rows(state, forget), after)
    )
    assert now.mean() < was.mean()


def test_a_deleted_row_is_that_of_unknown_users(made: tuple[RunConfig, Path]) -> None:
    state = load_file(made[1] / "run" / "ranker" / "model.safetensors")
    table = next(name for name in state if name.endswith(".user.weight"))
    found = delete_rows(state, np.array([5]))
    assert torch.equal(found[table][5], state[table][UNKNOWN_ID])
    assert torch.equal(found[table][6], state[table][6])
    assert not torch.equal(state[table][5], state[table][UNKNOWN_ID])
