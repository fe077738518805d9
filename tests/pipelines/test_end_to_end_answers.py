"""The real BentoML server on a finished chain: torch, ONNX, the command line and HTTP give the same answers."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from chain_world import Chain, recsys
from safetensors.torch import load_file

from pipelines import models
from pipelines.export import GRAPHS
from recsys.batch import Batch, Ids
from recsys.dataset import Dataset
from recsys.train.checkpoint import load_model_state
from recsys.train.distributed import place
from recsys.train.loop import MODEL_FILE
from serving.client import Client, ask
from serving.recommend import recommend as answer_offline
from serving.run import running_service
from serving.schema import Query

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def url(chain: Chain) -> Iterator[str]:
    with running_service(chain.workspace.bundle) as url:
        yield url


def test_torch_onnx_and_http_give_the_same_scores(chain: Chain, url: str, group: torch.device) -> None:
    """The bar of the trunk: for the same user, scores of the trained TorchRec models, of ONNX and of the endpoint agree."""
    config, data = chain.config, Dataset(chain.workspace.dataset)
    for user in np.argsort(data.length_U)[::-1][:4]:
        user_id = data.user_ids[user]
        served = ask(url, user_id=user_id, k=20, filter_seen=False)
        offline = answer_offline(_bundle(chain), Query(user_id=user_id, k=20, filter_seen=False)).model_dump()
        assert _close(served["items"], offline["items"])
        retrieval, probability = _torch_scores(chain, data, group, int(user), [item["item_id"] for item in served["items"]])
        for rank, item in enumerate(served["items"]):
            assert item["retrieval_score"] == pytest.approx(retrieval[rank], abs=TOLERANCE)
            assert list(item["tasks"].values()) == pytest.approx(probability[rank], abs=TOLERANCE)
            value = sum(config.value[task] * p for task, p in item["tasks"].items())
            assert item["score"] == pytest.approx(value, abs=TOLERANCE)


def test_a_user_without_history_gets_what_is_popular_with_users_like_them(chain: Chain, url: str) -> None:
    data, bundle = Dataset(chain.workspace.dataset), _bundle(chain)
    user = int(np.flatnonzero(data.length_U[2:] == 0)[0]) + 2
    served = ask(url, user_id=data.user_ids[user], k=20)
    offline = answer_offline(bundle, Query(user_id=data.user_ids[user], k=20)).model_dump()
    assert _close(served["items"], offline["items"])
    assert (served["flags"], served["fallback"]) == (["empty_history"], "segment")
    assert [item["item_id"] for item in served["items"]] == [bundle.item_id(item) for item in bundle.popular_with(user)[:20]]
    assert {item["source"] for item in served["items"]} == {"segment"}


def test_the_answer_excludes_what_was_seen_and_its_version_leads_to_its_lineage(chain: Chain, url: str) -> None:
    data = Dataset(chain.workspace.dataset)
    user = int(np.argmax(data.length_U))
    seen = {data.item_ids[item] for item in data.item_E[data.start_U[user] :][: data.length_U[user]]}
    found = ask(url, user_id=data.user_ids[user], k=50)
    assert len(found["items"]) == 50
    assert not seen & {item["item_id"] for item in found["items"]}
    info = Client(url).info()
    assert (found["model"], found["version"]) == (info.model, info.version)
    assert info.version == json.loads((chain.workspace.bundle / "manifest.json").read_text())["fingerprint"]
    assert info.lineage["data_fingerprint"] == data.manifest["data_fingerprint"]


def test_recommend_offline_and_through_the_endpoint(chain: Chain, url: str) -> None:
    item = Dataset(chain.workspace.dataset).item_ids[2]
    here = json.loads(recsys("recommend", "--history", str(item), "--k", "3", "--json", cwd=chain.folder).stdout)
    there = json.loads(recsys("recommend", "--history", str(item), "--k", "3", "--json", "--url", url, cwd=chain.folder).stdout)
    assert [each["item_id"] for each in here["items"]] == [each["item_id"] for each in there["items"]]


def test_a_port_in_use_is_named(chain: Chain, url: str) -> None:
    port = url.rsplit(":", 1)[1]
    done = recsys("serve", "--port", port, cwd=chain.folder)
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 cannot be used" in done.stderr


def _bundle(chain: Chain) -> Any:
    from serving.bundle.bundle import Bundle

    assert all((chain.workspace.bundle / name).is_file() for name in GRAPHS.values())
    return Bundle.load(chain.workspace.bundle)


def _close(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    same_ids = [item["item_id"] for item in found] == [item["item_id"] for item in expected]
    return same_ids and np.allclose([item["score"] for item in found], [item["score"] for item in expected], atol=TOLERANCE)


def _torch_scores(
    chain: Chain, data: Dataset, device: torch.device, user: int, item_ids: list[str]
) -> tuple[list[float], list[list[float]]]:
    """Scores of the training forms, through TorchRec, for a user's whole timeline."""
    config = chain.config
    timeline = data.item_E[data.start_U[user] :][: data.length_U[user]].astype(np.int64)
    item_C = np.array([data.item_ids.index(item_id) for item_id in item_ids])

    retriever = place(models.retriever(config, data), device)
    load_model_state(retriever, load_file(chain.workspace.checkpoint("retriever") / MODEL_FILE))
    recent = timeline[-config.max_history :]
    times = torch.arange(len(recent) + 1)
    codes = models.item_codes(config, data)
    with torch.no_grad():
        item_ID = retriever.eval().item_vectors(retriever.embeddings(codes.all()), codes.known_I)
        hidden = retriever(Ids(torch.tensor(recent), torch.tensor([len(recent)])), item_ID, times)
        vectors = item_ID[torch.tensor(item_C)]

    ranker = place(models.ranker(config, data), device)
    load_model_state(ranker, load_file(chain.workspace.checkpoint("ranker") / MODEL_FILE))
    size = len(item_C)
    ones = torch.ones(size, dtype=torch.int64)
    recent = timeline[-config.ranker_history :]
    ids = {
        "user": Ids(ones * user, ones),
        "item": Ids(torch.tensor(item_C), ones),
        "history": Ids(torch.tensor(np.tile(recent, size)), ones * len(recent)),
    }
    for feature in data.features:
        if feature["owner"] == "context":
            ids[feature["name"]] = Ids(ones, ones)  # the unknown code: the request names no context
            continue
        rows = np.full(size, user) if feature["owner"] == "user" else item_C
        codes = data.codes(feature["name"], feature["owner"]).take(rows)
        ids[feature["name"]] = Ids(torch.tensor(codes.item_E.astype(np.int64)), torch.tensor(codes.lengths))
    category_I = data.codes("category", "item").item_E
    taste_C = [np.log1p(np.count_nonzero(category_I[timeline] == category_I[item])) for item in item_C]  # of all their clicks
    batch = Batch(ids, dense_BF=torch.tensor(taste_C, dtype=torch.float32)[:, None])
    with torch.no_grad():
        logit_BT = ranker.eval()(ranker.embeddings(ranker.look_ups(batch)), batch)
        return (vectors @ hidden[-1]).tolist(), logit_BT.sigmoid().tolist()
