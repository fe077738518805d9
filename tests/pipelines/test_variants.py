"""What an ablation compares is found in the config's own types, and what it cannot compare is refused in a sentence."""

from typing import Any

import pytest
import yaml
from planted_data import planted_config

from pipelines.ablation.variants import BASE, STAGES, Plan, families, named, over, plan
from recsys.config import RunConfig
from recsys.errors import InputError

CONFIG = planted_config({"epochs": 1})


def with_(**changes: Any) -> RunConfig:
    tree = CONFIG.model_dump(mode="json", exclude_unset=True)
    tree["retriever"] |= changes
    return RunConfig.model_validate(tree)


def load(*overrides: str) -> RunConfig:
    """`recsys.config.load` of CONFIG: the last part of a key replaced."""
    tree = CONFIG.model_dump(mode="json", exclude_unset=True)
    for override in overrides:
        key, _, text = override.partition("=")
        here = tree
        *way, last = key.split(".")
        for name in way:
            here = here.setdefault(name, {})
        here[last] = yaml.safe_load(text)
    try:
        return RunConfig.model_validate(tree)
    except ValueError as error:
        raise InputError("no config") from error


def with_all_stages() -> RunConfig:
    """CONFIG with every section that a stage trains."""
    tree = CONFIG.model_dump(mode="json", exclude_unset=True)
    return RunConfig.model_validate(tree | {"generator": {}, "policy": {}})


WHOLE = with_all_stages()


def over_or_reason(key: str, stage: str) -> Plan | str:
    try:
        return over(WHOLE, key, stage)
    except InputError as error:
        return str(error)


FAMILIES = [(stage, key) for stage in STAGES for key in families(stage)]


@pytest.mark.parametrize(("stage", "key"), FAMILIES, ids=[".".join(each) for each in FAMILIES])
def test_every_choice_of_every_family_is_a_variant_or_left_out_with_the_reason(stage: str, key: str) -> None:
    chosen = set(families(stage)[key])
    found = over_or_reason(key, stage)
    if isinstance(found, str):  # every choice but the base's own is no config, and it says why
        assert found.startswith(f"--over {key} leaves nothing to compare with the base")
        assert len([name for name in chosen if f"{name}: " not in found]) <= 1
        return
    base = found.variants.pop(BASE)
    assert base is WHOLE
    assert {name.removesuffix("-defaults") for name in found.variants} | set(found.left_out) <= chosen
    assert len(found.variants) + len(found.left_out) >= len(chosen) - 1  # one of them may be the base itself
    assert all(found.left_out.values())
    for variant in found.variants.values():
        assert getattr(getattr(variant, stage), key) != getattr(getattr(WHOLE, stage), key)
        assert variant.model_copy(update={stage: getattr(WHOLE, stage)}) == WHOLE


def test_a_union_gives_a_variant_of_each_kind() -> None:
    found = over(CONFIG, "loss")
    assert set(found.variants) == {BASE, *(each for each in families("retriever")["loss"] if each != "full_softmax")}
    assert [found.variants[name].retriever.loss.kind for name in ("gbce", "bpr")] == ["gbce", "bpr"]
    assert (found.stage, found.title) == ("retriever", "retriever.loss")


def test_a_family_with_one_member_may_be_switched_on_and_off() -> None:
    assert "truncated" in over(CONFIG, "denoise").variants
    off = over(with_(denoise={"kind": "truncated", "max_drop_rate": 0.4}), "denoise").variants
    assert off["none"].retriever.denoise is None
    assert off["truncated-defaults"].retriever.denoise.max_drop_rate == 0.2  # the base's own settings do not shine through
    assert off[BASE].retriever.denoise.max_drop_rate == 0.4


def test_the_stage_is_that_of_the_key_the_retriever_where_both_have_it() -> None:
    assert over(CONFIG, "sharing").stage == "ranker"
    assert over(CONFIG, "denoise").stage == "retriever"
    assert over(CONFIG, "denoise", "ranker").stage == "ranker"
    assert over(CONFIG, "ranker.denoise").stage == "ranker"


def test_a_choice_that_the_rest_of_the_config_refuses_is_left_out_with_the_reason() -> None:
    tree = CONFIG.model_dump(mode="json", exclude_unset=True)
    tree["ranker"]["balance"] = {"kind": "pcgrad"}
    found = over(RunConfig.model_validate(tree), "fit.precision", "ranker")
    assert set(found.variants) == {BASE, "bfloat16"}
    assert "fit.precision float16 scales the loss, which balance pcgrad cannot bear" in found.left_out["float16"]


def test_a_key_inside_a_section() -> None:
    found = over(CONFIG, "fit.precision")
    assert set(found.variants) == {BASE, "bfloat16", "float16"}
    assert found.variants["bfloat16"].retriever.fit == CONFIG.retriever.fit.model_copy(update={"precision": "bfloat16"})
    hstu = over(with_(encoder={"kind": "hstu", "dim": 16, "heads": 2}), "encoder.query_time").variants
    assert {each.retriever.encoder.dim for each in hstu.values()} == {16}
    assert len({each.retriever.encoder.query_time for each in hstu.values()}) == len(hstu) > 1


def test_named_variants_change_one_key_or_several() -> None:
    text = "both: {retriever.denoise: {kind: truncated, max_drop_rate: 0.3}, retriever.encoder.dim: 8}"
    found = named(CONFIG, [text, "half: {retriever.fit.epochs: 4}"], load)
    assert list(found.variants) == [BASE, "both", "half"]
    assert (found.stage, found.title) == ("retriever", "variants")
    both = found.variants["both"].retriever
    assert (both.denoise.max_drop_rate, both.encoder.dim) == (0.3, 8)
    assert found.variants["half"].retriever.fit.epochs == 4


def test_what_a_stage_begins_from_is_its_own_too() -> None:
    def load_whole(*overrides: str) -> RunConfig:
        tree = load(*overrides).model_dump(mode="json", exclude_unset=True)
        return RunConfig.model_validate({"generator": {}, "policy": {}} | tree)

    text = "wide codes: {generator.ids.spare: 9}"
    assert named(WHOLE, [text], load_whole).stage == "generator"
    with pytest.raises(InputError, match="changes nothing of the policy"):  # which goes on from the retriever
        named(WHOLE, [text], load_whole, "policy")
    assert list(named(WHOLE, ["wide: {retriever.encoder.dim: 8}"], load_whole, "policy").variants) == [BASE, "wide"]
    with pytest.raises(InputError, match="variant none has no `policy` section to train"):
        named(WHOLE, ["none: {policy: null}"], load_whole, "policy")


def test_a_key_of_a_policy_or_a_generator() -> None:
    found = over(WHOLE, "objective")
    assert (found.stage, found.title) == ("policy", "policy.objective")
    assert {"dpo", "remax"} <= set(found.variants)
    assert "learns from rewards, and there are none" in found.left_out["top_k_reinforce"]
    assert set(over(WHOLE, "generator.decoder.softmax").variants) == {BASE, "all"}


def test_named_variants_join_those_of_a_family() -> None:
    found: Plan = plan(CONFIG, "similarity", ["warm: {retriever.similarity: {kind: cosine, temperature: 0.5}}"], load)
    assert list(found.variants) == [BASE, "cosine", "warm"]
    assert found.title == "retriever.similarity"


@pytest.mark.parametrize(
    ("key", "stage", "says"),
    [
        ("noise", None, "--over noise is no family of the config: choose one of retriever: encoder, "),
        ("sharing", "retriever", "--over sharing is no family of the config: choose one of retriever: encoder, "),
        ("ranker.sharing", "retriever", "belongs to the ranker, and --stage says retriever"),
        ("fit.speed", None, "retriever.fit has no key 'speed': choose one of batch_size, "),
        ("fit.epochs", None, "is a value and no choice between kinds: use --variant"),
        ("policy.objective", None, "needs policy, which this config leaves empty: set it with --set policy=..."),
        ("denoise.kind", None, "needs retriever.denoise, which this config leaves empty"),
        ("validation_too", None, "leaves nothing to compare with the base: true: retriever: validation_too trains"),
    ],
)
def test_what_is_no_family_is_refused(key: str, stage: str | None, says: str) -> None:
    with pytest.raises(InputError) as error:
        over(CONFIG, key, stage)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("texts", "stage", "says"),
    [
        (["wide"], None, "does not map a name to overrides: write 'NAME: {section.key: value}'"),
        (["wide: 3"], None, "does not map a name to overrides"),
        (["{: ["], None, "is not valid YAML"),
        (["../up: {retriever.encoder.dim: 8}"], None, "'../up' cannot be the name of a folder"),
        (["wide: {3: 4}"], None, "3 is no config key"),
        (["wide: {retriever.encoder.dims: 8}"], None, "variant wide: "),
        (["base: {retriever.encoder.dim: 8}"], None, "names 'base' twice (it is the config as it is): rename it"),
        (["a: {retriever.encoder.dim: 8}", "a: {retriever.encoder.dim: 4}"], None, "names 'a' twice: rename it"),
        (["a: {seed: 3}"], None, "variant a changes `seed`, which must be equal in all variants"),
        (["a: {evaluation.ks: [5]}"], None, "variant a changes `evaluation`"),
        (
            ["a: {retriever.encoder.dim: 8, ranker.dim: 4}"],
            None,
            "the variants change the retriever and the ranker: say which to train by --stage",
        ),
        (["a: {max_history: 7}"], None, "the variants change no stage: say which to train by --stage"),
        (["a: {retriever.encoder.dim: 8}"], "ranker", "variant a changes nothing of the ranker"),
        ([], None, "nothing to compare with the base: say --over FAMILY"),
        (["a: {retriever.encoder.dim: 8}"], "both", "--stage 'both' is unknown: choose retriever, generator, policy or ranker"),
        (
            ["a: {retriever.encoder.dim: 8}"],
            "policy",
            "this config has no `policy` section to train: set one, or choose another",
        ),
        (["'trailing ': {retriever.encoder.dim: 8}"], None, "'trailing ' cannot be the name of a folder"),
    ],
)
def test_what_is_no_variant_is_refused(texts: list[str], stage: str | None, says: str) -> None:
    with pytest.raises(InputError) as error:
        plan(CONFIG, None, texts, load, stage)
    assert says in str(error.value)
