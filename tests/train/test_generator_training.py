"""The generator in the loop: where it begins, what it learns, and that a stopped run goes on bit for bit.

Shapes: U = users, L = history, I = rows of the item table, J = items, T = levels, D = width, K = codes of a level.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generator_world import FIT, IDS, assert_pieces_are_the_whole, begun, generator_config, train
from planted_data import NUM_ITEMS, write_dataset
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from training_runs import (
    WORKER,
    Recorder,
    assert_same_tensors,
    environment,
    history,
    resume_folder,
    tensors,
)  # fmt: skip

from pipelines import models
from pipelines.evaluate import evaluate_run
from pipelines.semantic_ids import build_ids, semantic_ids
from pipelines.train import generator_job
from pipelines.workspace import Workspace, check_lineage
from recsys import evaluate
from recsys.artefact import read_manifest
from recsys.columns import FIRST_ID, TEST, VALID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.generate.ids import SemanticIds
from recsys.train.distributed import place
from recsys.train.loop import HISTORY_FILE, MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
STILL = {"learning_rate": 1e-30, "embedding_learning_rate": 1e-30, "epochs": 1, "batch_size": 160}  # moves no number
TOWER = {"tower": {"features": ["genre", "tags"], "id_dropout": 0.3}}
HSTU = {"kind": "hstu", "dim": 16, "blocks": 1, "heads": 2}
MANY = {"begin": "random", "encoder": HSTU, **TOWER, "decoder": {"blocks": 2, "softmax": "all"}}  # draws in every step


@pytest.fixture(scope="module")
def walks(planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A weak retriever of the planted walks, and ids of its vectors."""
    return begun(generator_config(), planted, group, tmp_path_factory.mktemp("walks"))


@pytest.fixture(scope="module")
def trained(planted: Dataset, walks: Workspace, group: torch.device) -> Workspace:
    """And a generator that began from them."""
    train(generator_config(), planted, walks.checkpoint("generator"), walks, group)
    return walks


def graph_of(config: RunConfig, data: Dataset, workspace: Workspace, folder: Path) -> Any:
    return models.generation_graph(config, data, semantic_ids(config, data, workspace), load_file(folder / MODEL_FILE))


def requests(data: Dataset) -> tuple[Tensor, Tensor]:
    """history_UL and length_U of what the users of the validation split did before."""
    judged = evaluate.judged_users(data, VALID, filter_seen=True)
    return evaluate.padded(judged.history.last(6))


def rounded(ids: SemanticIds, vector_JD: Tensor) -> list[Tensor]:
    """vector_JD of each level whose sum rounds an item's vector: the mean of what is left of the items with the same code."""
    left_JD, found = vector_JD.clone(), []
    for code_J in torch.from_numpy(ids.code_IT[FIRST_ID:].astype("int64")).unbind(1):
        level_JD = torch.stack([left_JD[code_J == code].mean(0) for code in code_J.tolist()])
        found.append(level_JD)
        left_JD = left_JD - level_JD
    return found


@pytest.mark.parametrize("tower", [{}, TOWER], ids=["items", "items and features"])
def test_it_begins_as_the_retriever_with_items_rounded_to_their_codes(
    tower: dict[str, Any], planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    """Logits of a code are the product of the state's direction and the code's part of the rounded item, over the temperature,
    so that an item's are that of the state and the rounded item; what is new is that codes compete level by level."""
    config = generator_config({"fit": STILL}, retriever=tower)
    workspace = begun(config, planted, group, tmp_path) if tower else walks
    train(config, planted, tmp_path / "generator", workspace, group)
    retriever = models.retrieval_graph(config, planted, load_file(workspace.checkpoint("retriever") / MODEL_FILE))
    graph, ids = graph_of(config, planted, workspace, tmp_path / "generator"), semantic_ids(config, planted, workspace)
    assert (planted.train_count_I[FIRST_ID:] > 0).all()
    torch.testing.assert_close(graph.item_ID[FIRST_ID:], retriever.item_ID[FIRST_ID:], rtol=0, atol=1e-7)

    history_UL, length_U = requests(planted)
    item_UJ = torch.arange(FIRST_ID, planted.num_items).expand(len(length_U), -1)
    noisy_UJT = graph.log_probs(history_UL, length_U, item_UJ)
    graph.decoder.place.data.zero_()  # what says which level it is, and which code was chosen, begins as a little noise
    for table in graph.decoder.read:
        table.data.zero_()
    found_UJT = graph.log_probs(history_UL, length_U, item_UJ)

    direction_UD = functional.normalize(retriever.users(history_UL, length_U), dim=1)
    parts = rounded(ids, functional.normalize(retriever.item_ID[FIRST_ID:], dim=1))
    logit_UJT = torch.stack([direction_UD @ part_JD.T for part_JD in parts], dim=-1) / config.generator.decoder.temperature
    torch.testing.assert_close(found_UJT, by_level(ids, logit_UJT), atol=1e-3, rtol=1e-4)
    assert (noisy_UJT.sum(-1).argmax(1) == found_UJT.sum(-1).argmax(1)).float().mean() > 0.8


def by_level(ids: SemanticIds, logit_UJT: Tensor) -> Tensor:
    """log_prob_UJT where the codes that follow one prefix compete, each with the logit that all items behind it share."""
    code_JT, found_UJT = ids.code_IT[FIRST_ID:].tolist(), torch.empty_like(logit_UJT)
    for level in range(ids.levels):
        for item, code in enumerate(code_JT):
            behind = {tuple(each[: level + 1]): place for place, each in enumerate(code_JT) if each[:level] == code[:level]}
            total_U = logit_UJT[:, list(behind.values()), level].logsumexp(1)
            found_UJT[:, item, level] = logit_UJT[:, item, level] - total_U
    return found_UJT


def test_without_own_rows_it_begins_with_a_history_of_rounded_items(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    config = generator_config({"fit": STILL, "own_row": False})
    train(config, planted, tmp_path / "generator", walks, group)
    retriever = models.retrieval_graph(config, planted, load_file(walks.checkpoint("retriever") / MODEL_FILE))
    graph, ids = graph_of(config, planted, walks, tmp_path / "generator"), semantic_ids(config, planted, walks)
    wanted_JD = torch.stack(rounded(ids, retriever.item_ID[FIRST_ID:])).sum(0)
    torch.testing.assert_close(graph.item_ID[FIRST_ID:], wanted_JD, atol=1e-5, rtol=1e-4)


def test_at_random_it_begins_elsewhere_and_needs_no_retriever(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    content = {**IDS, "vectors": {"kind": "content"}}
    config, workspace = generator_config({"begin": "random", "ids": content, "fit": {"epochs": 1}}), Workspace(tmp_path)
    with pytest.raises(InputError, match="holds no semantic_ids: make it with `recsys ids`"):
        train(config, planted, workspace.checkpoint("generator"), workspace, group)
    build_ids(config, planted, workspace)
    train(config, planted, workspace.checkpoint("generator"), workspace, group)
    assert check_lineage(workspace, "generator", planted, config)["identity"]["start"] is None
    from_retriever = generator_config({"ids": content})
    with pytest.raises(InputError, match="retriever holds no checkpoint: make it with `recsys train`"):
        train(from_retriever, planted, workspace.checkpoint("generator"), workspace, group)


@pytest.fixture(scope="module")
def judged(planted: Dataset, trained: Workspace) -> dict[str, Any]:
    return dict(evaluate_run(generator_config(serving={"candidates": "generator"}), planted, trained)["retrieval"])


def test_it_learns_what_was_planted_beyond_its_retriever_and_the_floor(judged: dict[str, Any], trained: Workspace) -> None:
    assert judged["served"] == "generator"
    model, retriever, popularity = judged["model"], judged["parts"]["retriever"], judged["floor"]["popularity"]
    assert model["NDCG@5"] > retriever["NDCG@5"] + 0.05 > popularity["NDCG@5"] + 0.1
    entries = json.loads((trained.checkpoint("generator") / HISTORY_FILE).read_text())
    assert {f"loss_of_code/{level}" for level in range(3)}.isdisjoint(entries[0]), "terms of steps are no validation"
    assert (
        max(entry["valid/NDCG@5"] for entry in entries) == read_manifest(trained.checkpoint("generator"), "checkpoint")["best"]
    )


def test_what_is_validated_is_what_is_evaluated(planted: Dataset, trained: Workspace) -> None:
    """The same lists from the checkpoint as those by which the best epoch was chosen."""
    config = generator_config()
    graph = graph_of(config, planted, trained, trained.checkpoint("generator"))
    judged = evaluate.judged_users(planted, VALID, filter_seen=True)
    item_UK = evaluate.recommend(graph, judged, k=5, max_history=6, filter_seen=True)
    means, _ = evaluate.retrieval_metrics(item_UK, judged, [5], planted.num_items)
    assert means["NDCG@5"] == read_manifest(trained.checkpoint("generator"), "checkpoint")["best"]


def test_no_list_has_what_was_seen_or_what_is_no_item(planted: Dataset, trained: Workspace) -> None:
    judged = evaluate.judged_users(planted, TEST, filter_seen=True)
    graph = graph_of(generator_config(), planted, trained, trained.checkpoint("generator"))
    item_UK = evaluate.recommend(graph, judged, k=NUM_ITEMS, max_history=6, filter_seen=True)
    for row, seen in enumerate(np.split(judged.history.item_E, judged.history.offset_U1[1:-1])):
        found = item_UK[row][item_UK[row] > 0].tolist()
        assert sorted(found) == sorted(set(range(FIRST_ID, NUM_ITEMS)) - set(seen.tolist()))


@pytest.mark.parametrize("part", [{}, MANY], ids=["plain", "many"])
def test_stopped_and_resumed_equals_undisturbed_bit_for_bit(
    part: dict[str, Any], planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    config, whole, pieces = generator_config({**part, "fit": {"batch_size": 50}}), tmp_path / "whole", tmp_path / "pieces"
    steps = generator_job(config, planted, semantic_ids(config, planted, walks), group).loader.num_batches(0)
    assert steps > 2
    assert_pieces_are_the_whole(
        lambda out, stop: train(config, planted, out, walks, group, stop_after_steps=stop), steps, whole, pieces
    )
    for out in (pieces, tmp_path / "third"):
        train(config, planted, out, walks, group)
    assert_same_tensors(tensors(pieces), tensors(tmp_path / "third"))
    assert history(pieces) == history(tmp_path / "third")


def test_killed_and_resumed_equals_undisturbed_bit_for_bit(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    change = {"fit": {"checkpoint_minutes": 0}}
    options = {
        "part": "generator", "data": str(planted.folder), "out": str(tmp_path / "killed"), "workspace": str(walks.root),
        "generator": change, "kill_at_step": 7,
    }  # fmt: skip
    run = subprocess.run([sys.executable, WORKER, json.dumps([options])], capture_output=True, text=True, env=environment())
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert 5 <= read_manifest(resume_folder(tmp_path / "killed"), "checkpoint", verify=True)["state"]["step"] < 7
    for out in ("killed", "undisturbed"):
        recorder = Recorder()
        train(generator_config(change), planted, tmp_path / out, walks, group, progress=recorder)
        assert len(recorder.losses) == (10 if out == "undisturbed" else 4)
    assert_same_tensors(tensors(tmp_path / "killed"), tensors(tmp_path / "undisturbed"))


def test_a_batch_in_parts_gives_the_same_generator(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    for accumulate in (1, 3):
        config = generator_config({"fit": {"epochs": 1, "accumulate": accumulate}, "begin": "random"}, dropout=0.0)
        train(config, planted, tmp_path / f"{accumulate}", walks, group)
    one, three = tensors(tmp_path / "1"), tensors(tmp_path / "3")
    assert one["decoder.bias.0"].abs().min() > 0, "which began at 0"
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, three[name], atol=2e-5, rtol=1e-3, msg=name)


def test_gradients_of_parts_add_up_to_those_of_the_batch(planted: Dataset, walks: Workspace, group: torch.device) -> None:
    exact = {"tower": {"features": ["genre", "tags"]}, "encoder": {**HSTU, "dropout": 0.0}}
    config = generator_config({**MANY, **exact}, dropout=0.0)
    job = generator_job(config, planted, semantic_ids(config, planted, walks), group)
    torch.manual_seed(1)
    model, batch = place(job.build(), group), next(job.loader.epoch(0))
    for parameter in model.decoder.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)  # at first nothing but zeros is read of what a block finds
    drawn, count_T = job.learner.draw(batch, torch.Generator()), job.learner.counts(batch)
    found = {name: vector.detach().requires_grad_() for name, vector in model.embeddings(drawn.ids).items()}
    assert set(found) == {"item", "genre", "tags", "semantic_id"}
    leaves = [*found.values(), *model.encoder.parameters(), *model.decoder.parameters()]
    assert count_T.tolist() == [len(batch.ids["history"].value_N)], "every event is a prediction"
    whole = torch.autograd.grad(job.learner.losses(model, found, batch, drawn, count_T, 0).loss_T.sum(), leaves)
    pieces = [
        torch.autograd.grad(job.learner.losses(model, found, rows, drawn, count_T, 0).loss_T.sum(), leaves)
        for found, rows in job.learner.parts(model, found, batch, [1, 10, batch.rows - 11])
    ]
    for total, parts in zip(whole, zip(*pieces, strict=True), strict=True):
        torch.testing.assert_close(sum(parts), total, atol=1e-5, rtol=1e-4)
        assert total.abs().max() > 0


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_half_precision_it_learns_alike(
    precision: str, planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    losses = {}
    for each in ("float32", precision):
        recorder = Recorder()
        config = generator_config({"fit": {"epochs": 1, "precision": each}, "begin": "random"}, dropout=0.0)
        train(config, planted, tmp_path / each, walks, group, progress=recorder)
        losses[each] = recorder.losses
    assert len(losses[precision]) == 5
    np.testing.assert_allclose(losses[precision], losses["float32"], rtol=0.05)
    assert losses[precision] != losses["float32"]
    assert losses[precision][-1] < losses[precision][0]
    assert all(tensor.dtype != torch.bfloat16 for tensor in tensors(tmp_path / precision).values())


def test_trained_on_the_validation_events_too_the_last_model_is_kept(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"validation_too trains on the events that would choose the best epoch: set fit\.keep"
    ):
        generator_config({"validation_too": True})
    settings = {"keep": "last", "patience": 1, "epochs": 3}
    config = generator_config({"validation_too": True, "fit": settings})
    ids = semantic_ids(config, planted, walks)
    lasts = []
    for each in (config, generator_config()):
        [count, events] = [0, 0]
        for batch in generator_job(each, planted, ids, group).loader.epoch(0):
            count, events = count + batch.rows, events + len(batch.ids["history"].value_N)
        lasts.append(events)
    capped = np.minimum(planted.train_length_U, 6).sum(), np.minimum(planted.train_length_U + planted.valid_length_U, 6).sum()
    assert lasts[0] > lasts[1] >= capped[0]
    manifest = train(config, planted, tmp_path / "generator", walks, group)
    entries = history(tmp_path / "generator")
    assert [entry["epoch"] for entry in entries] == [1, 2, 3], "and no patience ends it"
    assert manifest["best"] == entries[-1]["valid/NDCG@5"]
    job = generator_job(config, planted, ids, group)
    assert job.validate(tensors(tmp_path / "generator"))["valid/NDCG@5"] == manifest["best"]


def test_the_time_of_a_request_counts_where_the_encoder_reads_it(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    config = generator_config({"begin": "random", "encoder": HSTU, "fit": {"epochs": 1}})
    train(config, planted, tmp_path / "generator", walks, group)
    graph = graph_of(config, planted, walks, tmp_path / "generator")
    history_UL, length_U = requests(planted)
    time_UM = torch.zeros(len(length_U), history_UL.shape[1] + 1, dtype=torch.int64)
    later_UM = time_UM.scatter(1, length_U[:, None], 10**10)
    item_UJ = torch.arange(FIRST_ID, planted.num_items).expand(len(length_U), -1)
    now, later = (graph.log_probs(history_UL, length_U, item_UJ, each) for each in (time_UM, later_UM))
    assert ((now - later).abs().amax((1, 2)) > 1e-4).all()

    timeless = write_dataset(tmp_path / "timeless", [[2, 3, 4, 5, 6]] * 8)
    timeless.manifest["has_time"] = False
    with pytest.raises(InputError, match=r"generator\.encoder hstu reads when events happened, .*: choose sasrec"):
        generator_job(config, timeless, semantic_ids(config, planted, walks), group)


def test_events_without_company_are_predicted_from_the_start_token(
    planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    """Users with one event alone, whose windows show nothing, in batches of their own."""
    data = write_dataset(tmp_path / "dataset", [[2 + user % 3] for user in range(12)] + [[2, 3, 4, 5], [3, 4, 5, 6]])
    ids = SemanticIds(np.stack(np.divmod(np.arange(-2, NUM_ITEMS - 2), 8), axis=1).astype(np.int32), (6, 8))
    config = generator_config({"fit": {"batch_size": 2}})
    job = generator_job(config, data, ids, group)
    model, seen = place(job.build(), group), 0
    for batch in job.loader.epoch(0):
        drawn = job.learner.draw(batch, torch.Generator())
        loss_T = job.learner.losses(model, model.embeddings(drawn.ids), batch, drawn, job.learner.counts(batch), 0).loss_T
        loss_T.backward()
        assert torch.isfinite(loss_T).all()
        seen += int((batch.ids["history"].length_B == 1).all())
    assert seen > 0
    graph = models.generation_graph(config, data, ids, {**job_state(model)})
    nobody_BL, length_B = torch.zeros(3, 0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    item_BK, _ = graph.best(nobody_BL, length_B, torch.zeros(3, 1, dtype=torch.int64), 5)
    assert (item_BK == item_BK[0]).all()
    assert (item_BK >= FIRST_ID).all()


def job_state(model: Any) -> dict[str, Tensor]:
    from recsys.train.checkpoint import model_state

    return model_state(model)


def test_the_same_seed_gives_the_same_generator_under_deterministic_kernels(
    planted: Dataset, walks: Workspace, group: torch.device, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        train(generator_config({"fit": {**FIT, "epochs": 1, "deterministic": True}}), planted, tmp_path / name, walks, group)
    assert_same_tensors(tensors(tmp_path / "one"), tensors(tmp_path / "two"))
