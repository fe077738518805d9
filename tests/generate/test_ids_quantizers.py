"""What holds for every quantizer and every kind of vectors: a new member of a union is tested here without an edit."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from catalogues import EACH, GROUPS, catalogue, planted_items, planted_titles, planted_vectors
from pydantic import ValidationError

from recsys.columns import FIRST_ID
from recsys.errors import InputError
from recsys.generate.assign import assign, extend
from recsys.generate.given import Given
from recsys.generate.ids_config import IdsConfig, Limits, Quantizer, Vectors
from recsys.generate.items import Items
from recsys.generate.quality import check, quality
from recsys.generate.rq_vae import RQVAE, Autoencoder, quantize

SIDS = [[f"<a_{item % GROUPS}>", f"<b_{item // GROUPS % 3}>", f"<c_{item % 2}>"] for item in range(GROUPS * EACH)]
SETTINGS: dict[str, dict[str, Any]] = {"given": {"features": ("sid",)}, "rq_vae": {"epochs": 60, "hidden": (16,), "latent": 4}}
OPEN = Limits(min_usage=0, min_entropy=0, max_collision_rate=1)


def members(union: Any) -> list[type]:
    return list(get_args(get_args(union)[0]))


def small(kind: type) -> Any:
    name = kind.model_fields["kind"].default  # type: ignore[attr-defined]
    wanted = {"levels": 2, "codes": 4} | SETTINGS.get(name, {})
    return kind(**{key: value for key, value in wanted.items() if key in kind.model_fields})  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", members(Quantizer))
def test_every_quantizer_gives_valid_ids_twice_the_same_and_extends_them(kind: type, tmp_path: Path) -> None:
    config = IdsConfig(quantizer=small(kind), limits=OPEN)
    items = planted_items(tmp_path / "old", features={"sid": SIDS})
    before = torch.random.get_rng_state()
    one, two = assign(config, items, seed=3), assign(config, items, seed=3)
    assert (torch.random.get_rng_state() == before).all(), "the run's random numbers are its own"
    assert (one.ids.code_IT == two.ids.code_IT).all()
    assert one.ids.sizes[: one.code_NL.shape[1]] == config.quantizer.sizes(one.codebook.quantizer)
    titles, sids = [*planted_titles(), "chess board 7", "ink printer 8"], [*SIDS, SIDS[5], SIDS[1]]
    grown = extend(config, Items(catalogue(tmp_path / "new", titles, {"sid": sids})), one.ids, one.codebook).ids
    assert (grown.code_IT[: one.ids.num_items] == one.ids.code_IT).all()
    assert grown.num_items == one.ids.num_items + 2
    found = quality(config, one)
    assert found["items"] == GROUPS * EACH
    check(config, found)


@pytest.mark.parametrize("kind", [kind for kind in members(Quantizer) if kind.reads_vectors])  # type: ignore[attr-defined]
def test_quantizers_that_read_vectors_put_like_items_together(kind: type, tmp_path: Path) -> None:
    config = IdsConfig.model_validate(
        {"quantizer": small(kind).model_copy(update={"codes": GROUPS}), "vectors": {"kind": "collaborative"}}
    )
    assigned = assign(config, planted_items(tmp_path / "dataset"), seed=1)
    first = assigned.code_NL[:, 0].reshape(EACH, GROUPS)
    together = np.mean([(first[:, group] == np.bincount(first[:, group]).argmax()).mean() for group in range(GROUPS)])
    assert together > 0.9
    levels = quality(config, assigned)["levels"]
    assert levels[1]["error"] < levels[0]["error"]


@pytest.mark.parametrize("kind", members(Vectors))
def test_every_kind_of_vectors_has_length_one_and_zeros_for_what_is_not_known(kind: type, tmp_path: Path) -> None:
    vectors = small(kind)
    learned = planted_vectors()
    learned[5] = 0
    titles: list[str | None] = list(planted_titles())
    titles[5 - FIRST_ID] = None
    items = Items(catalogue(tmp_path / "dataset", titles), lambda: learned)
    found = vectors(items, vectors.fit(items, 1))
    length = np.linalg.norm(found, axis=1)
    unknown = [0, 1, 5]
    assert (length[unknown] == 0).all()
    np.testing.assert_allclose(np.delete(length, unknown), 1, rtol=1e-5)
    cosine = found[FIRST_ID:] @ found[FIRST_ID:].T
    np.fill_diagonal(cosine, -1)
    of_group = np.arange(GROUPS * EACH) % GROUPS
    nearest = of_group[cosine.argmax(1)]
    assert (np.delete(nearest == of_group, 3)).mean() > 0.95


def test_the_cosine_of_joint_vectors_is_the_mean_of_both(tmp_path: Path) -> None:
    items = planted_items(tmp_path / "dataset")
    content, collaborative, joint = (small(kind) for kind in members(Vectors))
    joint = joint.model_copy(update={"share": 0.25})
    told, learned, both = (each(items, each.fit(items, 1)) for each in (content, collaborative, joint))
    np.testing.assert_allclose(both @ both.T, 0.25 * told @ told.T + 0.75 * learned @ learned.T, atol=1e-5)


def test_rq_vae_loss_of_one_item() -> None:
    latent = torch.tensor([[1.0, 2.0]], requires_grad=True)
    codebook = torch.tensor([[[0.5, 1.5]]], requires_grad=True)
    loss, total, code = quantize(latent, codebook, beta=0.25)
    assert loss.tolist() == [0.5 + 0.25 * 0.5]  # the sum over numbers; their mean is .3125
    assert total.tolist() == [[0.5, 1.5]]
    assert code.tolist() == [[0]]


def test_the_residual_of_rq_vae_has_a_gradient_to_the_encoder_at_every_level() -> None:
    """The paper's form: d|r_2|^2 / dr = 2 r_2 = [1, 1]; with the straight-through residual it would be 0."""
    latent = torch.tensor([[1.0, 2.0]], requires_grad=True)
    codebook = torch.tensor([[[0.5, 1.5]], [[0.0, 0.0]]])
    with_second, _, _ = quantize(latent, codebook, beta=1.0)
    only_first, _, _ = quantize(latent, codebook[:1], beta=1.0)
    (gradient,) = torch.autograd.grad((with_second - only_first).sum(), latent)
    assert gradient.tolist() == [[1.0, 1.0]]


def test_codes_that_nothing_used_begin_anew_and_the_others_stay() -> None:
    torch.manual_seed(0)
    model = Autoencoder(RQVAE(levels=1, hidden=(), latent=2), 3, 4)
    with torch.no_grad():
        model.codebook_TKE.copy_(torch.full((1, 4, 2), 99.0))
    x_ND = torch.randn(20, 3)
    model.restart(x_ND, torch.tensor([[True, False, False, True]]))
    latent = model.encoder(x_ND)
    assert (model.codebook_TKE[0, [0, 3]] == 99).all()
    for code in (1, 2):
        assert torch.isclose(latent, model.codebook_TKE[0, code]).all(1).any(), "a residual of some item"


def test_given_codes_are_those_of_the_data_in_order(tmp_path: Path) -> None:
    data = catalogue(tmp_path / "dataset", features={"sid": SIDS, "a": [s[0] for s in SIDS], "b": [s[1] for s in SIDS]})
    by_list = assign(IdsConfig(quantizer=Given(features=("sid",))), Items(data), 1)
    by_level = assign(IdsConfig(quantizer=Given(features=("a", "b"))), Items(data), 1)
    assert (by_list.code_NL[:, :2] == by_level.code_NL).all()
    assert by_list.code_NL[:, 0].tolist() == [item % GROUPS for item in range(GROUPS * EACH)]
    assert by_list.ids.sizes[:3] == (GROUPS, 3, 2)


def test_given_codes_that_are_unique_have_no_last_level(tmp_path: Path) -> None:
    data = catalogue(tmp_path / "dataset", features={"sid": [["<a_0>", "<b_0>"], ["<a_0>", "<b_1>"], ["<a_1>", "<b_0>"]]})
    assert assign(IdsConfig(quantizer=Given(features=("sid",)), spare=0), Items(data), 1).ids.sizes == (2, 2)


def test_a_list_that_lost_a_repeat_is_refused(tmp_path: Path) -> None:
    data = catalogue(tmp_path / "dataset", features={"sid": [["1", "2"], ["2", "1"], ["7"]]})
    with pytest.raises(InputError, match="has 2 codes of most items and 1 of item 'i4': name one feature for each level"):
        assign(IdsConfig(quantizer=Given(features=("sid",))), Items(data), 1)


def test_a_given_code_that_is_new_is_refused_by_name(tmp_path: Path) -> None:
    config = IdsConfig(quantizer=Given(features=("sid",)))
    old = assign(config, Items(catalogue(tmp_path / "old", features={"sid": ["x", "y"]})), 1)
    with pytest.raises(InputError, match="item 'i4' has code 'z' at level 1, which no item had"):
        extend(config, Items(catalogue(tmp_path / "new", features={"sid": ["x", "y", "z"]})), old.ids, old.codebook)


def test_given_features_are_checked(tmp_path: Path) -> None:
    data = catalogue(tmp_path / "dataset", features={"brand": ["x", "y"]})
    with pytest.raises(InputError, match=r"quantizer.features names 'sid', which is no item feature: choose from \['brand'\]"):
        assign(IdsConfig(quantizer=Given(features=("sid",))), Items(data), 1)
    with pytest.raises(InputError, match=r"vectors.features names 'sid', which is no item feature"):
        assign(IdsConfig.model_validate({"vectors": {"kind": "content", "features": ["sid"]}}), Items(data), 1)
    with pytest.raises(ValidationError, match="takes codes from the data and reads no vectors"):
        IdsConfig.model_validate({"quantizer": {"kind": "given", "features": ["sid"]}, "vectors": {"kind": "content"}})
