"""Techniques beside one another: combinations of all families train, go on where they stopped, and say what is wrong.

A step of each combination is made by the stepper itself, without validation and checkpoints.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from planted_data import planted_config
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor
from training_runs import Recorder, assert_same_tensors, resume_folder, tensors, train, without_dropout

from pipelines.train import ranker_job, retriever_job
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.debias import Debias
from recsys.debias.estimate import Estimate, Rows
from recsys.debias.ips import InverseWeights
from recsys.denoise import Denoiser
from recsys.denoise.reweighted import Reweighted
from recsys.errors import InputError
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place
from recsys.train.loop import BATCH_FILE
from recsys.train.step import Stepper
from recsys.train.watch import Stopwatch
from recsys.weighing import Context

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
Choices = Mapping[str, list[Any]]
Settings = dict[str, Any]


def kinds(union: Any, **settings: Any) -> list[Settings]:
    """Every member of a union at its defaults, but for these settings of those that have them."""
    members = get_args(get_args(union)[0])
    return [
        {"kind": member.model_fields["kind"].default, **{k: v for k, v in settings.items() if k in member.model_fields}}
        for member in members
    ]


DENOISERS = kinds(Denoiser, start_step=1, ramp_steps=1, pool_size=3)
DEBIASERS = [debias for debias in kinds(Debias) if debias["kind"] in ("ips", "snips", "doubly_robust")]
LEARNING = {"kind": "self_taught", "start_step": 2}
POOL = {"negatives": {"kind": "uniform", "count": 24}}
COMPARED: list[Settings] = [
    {"loss": {"kind": "full_softmax"}},
    {"loss": {"kind": "sampled_softmax"}, **POOL},
    {"loss": {"kind": "gbce"}, "negatives": {"kind": "in_batch"}},
    {"loss": {"kind": "bpr"}, **POOL},
    {"loss": {"kind": "lambda_pairs"}, "hard": {"kind": "dynamic", "count": 6, "skip": 1}, "negatives": {"kind": "catalogue"}},
    {"loss": {"kind": "sampled_softmax"}, "hard": {"kind": "dynamic", "count": 6, "freeze_items": True}, **POOL},
    {"loss": {"kind": "bpr"}, "hard": {"kind": "stable", "best": 6, "count": 16, "targets": 16}, **POOL},
    {"loss": {"kind": "bpr"}, "hard": {"kind": "coupled", "count": 6}, **POOL},
]
RETRIEVERS: Choices = {
    "compared": COMPARED,
    "denoise": [None, *DENOISERS],
    "debias": [None, {"kind": "ips"}, {"kind": "snips"}],
    "sequence_views": [
        None,
        {"first": {"kind": "crop"}, "second": {"kind": "mask"}},
        {"first": {"kind": "substitute"}, "second": {"kind": "reorder"}},
        {"first": {"kind": "dropout"}, "second": {"kind": "noise"}},
    ],
    "item_views": [None, {"items": 20}, {"items": 20, "mask": {"kind": "random"}}],
    "uniformity": [None, {"kind": "alignment_uniformity"}, {"kind": "calibrated_uniformity"}],
    "matryoshka": [None, None, {"dims": [8]}],
    "precision": ["float32", "bfloat16"],
    "accumulate": [1, 1, 3],
}
RANKERS: Choices = {
    "denoise": [None, *DENOISERS],
    "debias": [None, *DEBIASERS],
    "balance": [{"kind": "fixed"}, {"kind": "pcgrad"}],
    "precision": ["float32", "bfloat16"],
    "accumulate": [1, 1, 3],
    "batch_size": [4, 48],
}
EVENTS = {"path": "-", "user": "u", "item": "i", "labels": {"click": "c", "like": "l"}, "context": {"hour": "h"}}


def config_with(part: str, settings: Settings, **fit: Any) -> RunConfig:
    plain = planted_config({"epochs": 1, "batch_size": 32, "warmup_steps": 0, **fit}).model_dump(mode="json")
    plain["data"] = {"events": EVENTS, "items": {"path": "-", "id": "i", "features": {"genre": "g", "tags": "t"}}}
    plain["retriever"]["tower"] = {"features": ["genre", "tags"]}
    return RunConfig.model_validate(plain | {part: plain[part] | settings})


def chosen(part: str, choice: Mapping[str, Any]) -> RunConfig:
    settings = {
        name: value for name, value in choice.items() if name not in ("compared", "precision", "accumulate", "batch_size")
    }
    fit = {name: choice[name] for name in ("precision", "accumulate", "batch_size") if name in choice}
    return config_with(part, settings | choice.get("compared", {}), **fit)


def combinations(part: str, choices: Choices, count: int) -> list[dict[str, Any]]:
    """As many random ones that a config allows; the same ones every time."""
    rng, found = random.Random(1), list[dict[str, Any]]()
    while len(found) < count:
        choice = {name: rng.choice(values) for name, values in choices.items()}
        with suppress(ValidationError):
            chosen(part, choice)
            found.append(choice)
    return found


def named(choice: Mapping[str, Any]) -> str:
    """The kinds in it."""
    flat = {**choice, **choice.get("compared", {})}
    return "-".join(str(value.get("kind", name)) for name, value in flat.items() if isinstance(value, dict))


MANY = [("retriever", choice) for choice in combinations("retriever", RETRIEVERS, 40)]
MANY += [("ranker", choice) for choice in combinations("ranker", RANKERS, 24)]


def test_every_choice_is_among_the_combinations() -> None:
    for part, choices in (("retriever", RETRIEVERS), ("ranker", RANKERS)):
        for name, values in choices.items():
            assert all(any(choice[name] == value for of, choice in MANY if of == part) for value in values), name
    denoised = [choice for _, choice in MANY if choice["denoise"]]
    assert {choice["denoise"]["kind"] for choice in denoised if choice["debias"]} == {each["kind"] for each in DENOISERS}
    assert {choice["denoise"]["kind"] for choice in denoised if choice["precision"] == "bfloat16"} == {
        each["kind"] for each in DENOISERS
    }


class Bench:
    """A placed model of a config and its stepper."""

    def __init__(self, part: str, config: RunConfig, data: Dataset, device: torch.device):
        self.job = (retriever_job if part == "retriever" else ranker_job)(config, data, device)
        spec = getattr(config, part).fit
        torch.manual_seed(0)
        self.model = place(self.job.build(), device, learning_rate=spec.embedding_learning_rate).train()
        self.stepper, self.device = Stepper(self.job, spec, self.model, device), device

    def steps(self, count: int) -> Iterator[dict[str, float]]:
        for step, batch in zip(range(count), self.job.loader.epoch(0), strict=False):
            torch.manual_seed(step)
            terms = self.stepper(batch, step, 1.0, torch.Generator().manual_seed(step), Stopwatch(self.device))
            yield {name: float(value) for name, value in terms.items()}


@pytest.mark.parametrize(("part", "choice"), MANY, ids=lambda value: named(value) if isinstance(value, dict) else value)
def test_every_combination_trains(part: str, choice: dict[str, Any], planted: Dataset, group: torch.device) -> None:
    bench = Bench(part, chosen(part, choice), planted, group)
    before = [parameter.detach().clone() for parameter in bench.stepper.parameters]
    for terms in bench.steps(3):
        assert all(math.isfinite(value) for value in terms.values()), terms
        assert terms["gradient_norm"] > 0
        assert ("own_loss" in terms) == bool(bench.stepper.helper_parameters)
    assert all(torch.isfinite(tensor).all() for tensor in model_state(bench.model).values())
    assert any(not torch.equal(*pair) for pair in zip(before, bench.stepper.parameters, strict=True))


SAMPLED_COUPLED: Settings = {"loss": {"kind": "bpr"}, "hard": {"kind": "coupled", "count": 6}, **POOL}


@pytest.mark.parametrize("settings", [SAMPLED_COUPLED, {"debias": {"kind": "ips"}}], ids=["coupled", "ips"])
def test_parts_of_a_batch_add_up(settings: Settings, planted: Dataset, group: torch.device) -> None:
    """Three parts of a batch come to the losses of the whole, those of a helper too."""
    config = without_dropout(config_with("retriever", settings, batch_size=48))
    cut = config.retriever.model_copy(update={"fit": config.retriever.fit.model_copy(update={"accumulate": 3})})
    configs = (config, config.model_copy(update={"retriever": cut}))
    (whole,), (parts,) = (list(Bench("retriever", each, planted, group).steps(1)) for each in configs)
    for name in {"loss", "own_loss"} & whole.keys():
        assert parts[name] == pytest.approx(whole[name], rel=1e-5), name


def test_a_batch_too_small_to_learn_from_teaches_the_helper_nothing(planted: Dataset, group: torch.device) -> None:
    bench = Bench("ranker", config_with("ranker", {"denoise": LEARNING}, batch_size=3), planted, group)
    before = [parameter.detach().clone() for parameter in bench.stepper.helper_parameters]
    assert all(abs(terms["own_loss"]) < 1e-4 for terms in bench.steps(3))
    assert all(torch.equal(*pair) for pair in zip(before, bench.stepper.helper_parameters, strict=True))


VIEWS: Settings = {"sequence_views": {"first": {"kind": "crop"}, "second": {"kind": "noise"}}}
RESUMED: dict[str, tuple[str, Settings]] = {
    "self_taught+coupled+views": ("retriever", {"denoise": LEARNING, **SAMPLED_COUPLED, **VIEWS}),
    "personal+item_views": (
        "retriever",
        {"denoise": {"kind": "personal"}, "item_views": {"items": 20}, "debias": {"kind": "ips"}},
    ),
    "self_taught+doubly_robust": ("ranker", {"denoise": LEARNING, "debias": {"kind": "doubly_robust"}}),
    "personal+snips": ("ranker", {"denoise": {"kind": "personal", "pool_size": 3}, "debias": {"kind": "snips"}}),
}


@pytest.mark.parametrize("case", RESUMED)
def test_stopped_and_resumed_equals_undisturbed_bit_for_bit(
    case: str, planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    """A stop before a helper starts to be listened to, one in the middle of an epoch, and one in the next epoch."""
    part, settings = RESUMED[case]
    config, whole, parts = config_with(part, settings, epochs=3), tmp_path / "whole", tmp_path / "parts"
    train(part, config, planted, whole, group, stop_after_steps=9)
    for stop in (1, 4, 9):
        torch.manual_seed(stop)
        train(part, config, planted, parts, group, stop_after_steps=stop)
    saved = tensors(resume_folder(whole))
    learns = any(kind in case for kind in ("self_taught", "doubly_robust", "coupled"))
    assert any(name.startswith("helpers/") for name in saved) == learns
    assert_same_tensors(saved, tensors(resume_folder(parts)))
    for out in (whole, parts):
        train(part, config, planted, out, group)
    assert_same_tensors(tensors(whole), tensors(parts))
    assert not [name for name in tensors(whole) if "helper" in name]  # what serves has no need of them


BAD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "nan": (lambda weight_B: weight_B.index_fill(0, torch.tensor([1]), torch.nan), "not finite numbers"),
    "infinite": (lambda weight_B: weight_B.index_fill(0, torch.tensor([1]), torch.inf), "not finite numbers"),
    "negative": (lambda weight_B: weight_B.index_fill(0, torch.tensor([1]), -0.1), "negative"),
    "zero": (torch.zeros_like, "all zero"),
}


@pytest.mark.parametrize("technique", ["denoise reweighted", "debias snips"])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("part", ["retriever", "ranker"])
def test_bad_weights_stop_the_step_and_the_batch_is_kept(
    part: str, bad: str, technique: str, planted: Dataset, group: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (part, technique) == ("retriever", "debias snips"):
        pytest.skip("the retriever's weights are one per item, and made before training")
    (spoil, says), (family, kind) = BAD[bad], technique.split()
    taught, weighed = Reweighted.__call__, InverseWeights.forward

    def denoise(self: Reweighted, loss_B: Tensor, label_B: Tensor, context: Context) -> Tensor:
        weight_B = taught(self, loss_B, label_B, context)
        return spoil(weight_B) if context.step == 2 else weight_B

    def debias(self: InverseWeights, rows: Rows) -> Estimate:
        estimate = weighed(self, rows)
        return replace(estimate, weight_BT=spoil(estimate.weight_BT)) if rows.step == 2 else estimate

    monkeypatch.setattr(*((Reweighted, "__call__", denoise) if family == "denoise" else (InverseWeights, "forward", debias)))
    config = config_with(part, {family: {"kind": kind}})
    where = (
        rf"{part}: the weights of {technique} are {says} at step 3: change its settings under {part}, or look at the batch in"
    )
    with pytest.raises(InputError, match=where):
        train(part, config, planted, tmp_path / "out", group, progress=Recorder())
    (folder,) = (tmp_path / "out.failed").iterdir()
    assert len(load_file(folder / BATCH_FILE)["length_B/history"])
