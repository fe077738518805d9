from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.workspace import CONFIGS, config_path
from recsys.config import RunConfig, load
from recsys.errors import InputError

BASE: dict[str, Any] = {
    "name": "base",
    "data": {"events": {"path": "log.csv", "user": "u", "item": "i", "labels": {"click": "c", "like": "l"}}},
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base.yaml", BASE)


def write(path: Path, tree: Any) -> Path:
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads(path: Path) -> None:
    config = load(config_path(path.stem))
    assert config.name == path.stem
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def test_defaults(base: Path) -> None:
    config = load(base)
    assert config.tasks == config.value == {"click": 1, "like": 1}
    assert config.retriever.loss.kind == "full_softmax"


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as error:
        load(path, *overrides)
    assert "\n" not in str(error.value), "one sentence"
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("retreiver.fit.epochs=1", ["retreiver", "choose from", "'retriever'"]),
        ("retriever.fit.epoch=1", ["retriever.fit.epoch", "choose from", "'epochs'", "'batch_size'"]),
        ("retriever.encoder={kind: sasrec, head: 1}", ["head", "choose from", "'heads'"]),
        ("ranker.sharing={kind: mmoe, expert: 1}", ["ranker.sharing", "expert", "choose from", "'experts'"]),
        ("data.split={kind: time, valid: 1}", ["data.split", "valid", "choose from", "'valid_share'"]),
        ("serving.rerank=[{kind: mmr, trade: 1}]", ["serving.rerank.0.mmr.trade", "choose from", "'trade_off'"]),
        ("serving.rerank=[{trade_off: 1}]", ["serving.rerank.0", "needs a `kind`", "'mmr'"]),
        ("serving.segment=country", ["serving.segment names the unknown user feature 'country'", "choose from []"]),
        ("serving.value=click / like", ["serving.value", "no finite value where click is 0", "add a number"]),
        ("data.events.usr=x", ["data.events.usr", "choose from", "'user'"]),
    ],
)
def test_a_misspelt_key_is_named_with_the_choices(base: Path, override: str, parts: list[str]) -> None:
    message = refused(base, override)
    assert all(part in message for part in ["base.yaml", *parts]), message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("retriever.loss={kind: softmax}", ["retriever.loss", "softmax", "full_softmax", "sampled_softmax"]),
        ("ranker.sharing={kind: moe}", ["ranker.sharing", "moe", "mmoe", "shared_bottom"]),
        ("ranker.sharing.experts=3", ["'ranker.sharing' needs a `kind`", "'mmoe'"]),
        ("data.split={kind: rndom}", ["data.split", "rndom", "time", "leave_one_out"]),
        ("data.events.time_unit=minutes", ["data.events.time_unit", "minutes", "'ms'"]),
    ],
)
def test_an_unknown_kind_is_named_with_the_choices(base: Path, override: str, parts: list[str]) -> None:
    message = refused(base, override)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("retriever.fit.epochs=0", ["retriever.fit.epochs", "0", "greater than or equal to 1"]),
        ("retriever.fit.learning_rate=fast", ["retriever.fit.learning_rate", "'fast'", "number"]),
        ("retriever.fit.learning_rate=.inf", ["retriever.fit.learning_rate", "finite"]),
        ("retriever.encoder={kind: sasrec, dropout: 1}", ["dropout", "less than 1"]),
        ("retriever.encoder={kind: sasrec, dim: 10, heads: 4}", ["retriever.encoder", "dim 10 is not divisible by heads 4"]),
        ("ranker.dim=6", ["ranker.dim", "6", "multiple of 4"]),
        ("name=../up", ["name", "'../up'"]),
        ("evaluation.ks=[]", ["evaluation.ks", "at least 1"]),
        ("evaluation.ks=[10, 0]", ["evaluation.ks", "greater than or equal to 1"]),
        ("evaluation.ks=[5, 5]", ["evaluation.ks", "names a K twice"]),
        ("data.split={kind: time, valid_share: 0.6, test_share: 0.5}", ["valid_share 0.6", "test_share 0.5"]),
        ("data.events.user=u +", ["data.events.user", "Polars SQL expression"]),
        ("max_history=~", ["max_history", "None"]),
    ],
)
def test_a_value_out_of_range_is_named_with_its_place(base: Path, override: str, parts: list[str]) -> None:
    message = refused(base, override)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("overrides", "place", "known"),
    [
        (["ranker.tasks={clik: 1}"], "ranker.tasks", "['click', 'like']"),
        (["serving.value={buy: 1}"], "serving.value", "['click', 'like']"),
        (["ranker.tasks={click: 1}", "serving.value={like: 1}"], "serving.value", "['click']"),
    ],
)
def test_an_unknown_task_is_named_with_the_known_ones(base: Path, overrides: list[str], place: str, known: str) -> None:
    message = refused(base, *overrides)
    assert place in message
    assert f"choose from {known}" in message


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    assert "'data' is missing" in refused(write(tmp_path / "a.yaml", {"name": "a"}))
    message = refused(write(tmp_path / "b.yaml", {"name": "b", "data": {"events": {"path": "x", "user": "u"}}}))
    assert "'data.events.item' is missing" in message


def test_several_mistakes_are_counted(base: Path) -> None:
    assert "(and 1 more)" in refused(base, "ranker.dim=6", "retriever.fit.epochs=0")


@pytest.mark.parametrize("text", ["name: [a", "a: b: c", "\tname: x"])
def test_bad_yaml_is_said_to_be_bad(tmp_path: Path, text: str) -> None:
    assert "is not valid YAML" in refused(write(tmp_path / "bad.yaml", text))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text"])
def test_a_file_without_sections(tmp_path: Path, text: str) -> None:
    assert "must hold a mapping" in refused(write(tmp_path / "list.yaml", text))


def test_a_missing_file_and_a_binary_one(tmp_path: Path) -> None:
    assert "none.yaml cannot be read" in refused(tmp_path / "none.yaml")
    assert "cannot be read" in refused(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80\x81")
    assert "binary.yaml" in refused(tmp_path / "binary.yaml")


def test_unknown_shipped_config() -> None:
    with pytest.raises(InputError, match=r"'nope' is neither a file nor a shipped config: choose one of .*demo"):
        config_path("nope")


class TestOverrides:
    def test_values_are_yaml_and_nest(self, base: Path) -> None:
        config = load(
            base, "retriever.fit.epochs=3", "ranker.tasks={click: 2}", "evaluation.ks=[5]", "evaluation.filter_seen=false"
        )
        assert config.retriever.fit.epochs == 3
        assert config.tasks == {"click": 2}
        assert config.evaluation.ks == (5,)
        assert config.evaluation.filter_seen is False
        assert config.data.events.path == "log.csv"  # what is beside an override stays

    def test_the_last_one_wins(self, base: Path) -> None:
        assert load(base, "seed=2", "seed=3").seed == 3

    def test_a_value_may_hold_an_equals_sign(self, base: Path) -> None:
        assert load(base, "data.events.history=click = 1").data.events.history == "click = 1"

    def test_another_kind_replaces_its_section(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.yaml", BASE | {"ranker": {"sharing": {"kind": "mmoe", "experts": 7, "hidden": 3}}})
        assert load(path, "ranker.sharing.hidden=5").ranker.sharing.model_dump() == {"kind": "mmoe", "experts": 7, "hidden": 5}
        assert load(path, "ranker.sharing.kind=shared_bottom").ranker.sharing.kind == "shared_bottom"

    @pytest.mark.parametrize("override", ["seed", "=3", ""])
    def test_without_key_or_value(self, base: Path, override: str) -> None:
        assert "is not of the form section.key=value" in refused(base, override)

    @pytest.mark.parametrize("override", ["seed=[1", "seed={a: b: c}"])
    def test_a_value_that_is_no_yaml(self, base: Path, override: str) -> None:
        assert override in refused(base, override)

    @pytest.mark.parametrize("override", ["retriever=3", "seed.sub=3", "retriever..fit=3"])
    def test_a_section_in_place_of_a_value_and_the_reverse(self, base: Path, override: str) -> None:
        assert override.split("=")[0].split(".")[0] in refused(base, override)


class TestExtends:
    def test_keys_override_one_by_one(self, base: Path) -> None:
        child = write(
            base.parent / "child.yaml", {"extends": "base.yaml", "name": "child", "retriever": {"fit": {"epochs": 2}}}
        )
        grandchild = write(base.parent / "grandchild.yaml", {"extends": "child.yaml", "retriever": {"fit": {"batch_size": 7}}})
        config = load(grandchild)
        assert (config.name, config.retriever.fit.epochs, config.retriever.fit.batch_size) == ("child", 2, 7)
        assert load(child).data == load(base).data

    def test_a_circle_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path / "a.yaml", {"extends": "b.yaml"})
        write(tmp_path / "b.yaml", {"extends": "a.yaml"})
        assert "goes round in a circle" in refused(tmp_path / "a.yaml")
        write(tmp_path / "self.yaml", {"extends": "./self.yaml"})
        assert "goes round in a circle" in refused(tmp_path / "self.yaml")

    def test_a_circle_through_another_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        write(tmp_path / "a.yaml", {"extends": "sub/../a.yaml"})
        assert "goes round in a circle" in refused(tmp_path / "a.yaml")

    def test_a_missing_base_is_named(self, tmp_path: Path) -> None:
        assert "gone.yaml cannot be read" in refused(write(tmp_path / "a.yaml", {"extends": "gone.yaml"}))


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["retriever.negatives={kind: uniform}"], ["negatives", "full_softmax", "take them out"]),
        (["retriever.validation_too=true"], ["validation_too", "fit.keep", "last"]),
        (["retriever.matryoshka={dims: [16, 128]}"], ["matryoshka.dims 128", "encoder.dim 64", "leave it out"]),
        (["serving.dim=16"], ["serving.dim 16", "matryoshka.dims []", "add it there"]),
        (["serving.dim=24", "retriever.matryoshka={dims: [16]}"], ["serving.dim 24", "[16]"]),
        (["retriever.tower.features=[genre]"], ["retriever.tower.features", "'genre'", "no item feature"]),
        (
            ["ranker.fit.precision=float16", "ranker.balance={kind: pcgrad}"],
            ["float16", "pcgrad", "use bfloat16"],
        ),
        (["ranker.fit.batch_tokens=100"], ["fit.batch_tokens", "fit.batch_size"]),
        (["ranker.sharing={kind: esmm, given: {buy: click}}"], ["sharing.given", "'buy'", "'click'"]),
        (["retriever.encoder={kind: hstu, dim: 30, heads: 4}"], ["dim 30", "heads 4"]),
        (["retriever.fit.keep=newest"], ["retriever.fit.keep", "newest", "'best'"]),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused_in_one_sentence(
    base: Path, overrides: list[str], parts: list[str]
) -> None:
    message = refused(base, *overrides)
    assert all(part in message for part in parts), message


def test_settings_that_go_together_load(base: Path) -> None:
    config = load(
        base, "retriever.validation_too=true", "retriever.fit.keep=last", "serving.dim=16", "retriever.matryoshka={dims: [16]}"
    )
    assert config.serving.dim == 16
    assert load(base, "serving.dim=64").serving.dim == 64, "the full width needs no Matryoshka"


def test_a_default_that_a_run_stored_was_not_asked_for(base: Path, tmp_path: Path) -> None:
    given = "generator={ids: {quantizer: {kind: given, features: [sid]}}}"
    items = "data.items={path: items.csv, id: i, features: {sid: sid}}"
    config = load(base, "max_history=20", items, given)
    stored = write(tmp_path / "config.yaml", config.model_dump(mode="json"))
    assert load(stored, stored=True) == config
    assert "ranker.max_history 50 is more than max_history 20" in refused(base, "max_history=20", "ranker.max_history=50")
    assert "reads no vectors: take `vectors` out" in refused(base, items, given, "generator.ids.vectors={kind: content}")


def test_the_ranker_reads_all_point_in_time_features_unless_told(base: Path) -> None:
    features = "data.features={a: {kind: count, by: [user], event: click}, b: {kind: session_position}}"
    assert load(base).ranker_features == ()
    assert load(base, features).ranker_features == ("a", "b")
    assert load(base, features, "ranker.features=[b]").ranker_features == ("b",)
    assert load(base, features, "ranker.features=[]").ranker_features == ()
    assert "ranker.features names 'c', which is no point-in-time feature: choose from ['a', 'b']" in refused(
        base, features, "ranker.features=[c]"
    )
    assert "names a feature twice" in refused(base, features, "ranker.features=[a, a]")
    pairs = "ranker.debias={kind: doubly_robust, propensity: {kind: popularity}}"
    assert "whose point-in-time features are not known: set ranker.features to []" in refused(base, features, pairs)
    assert load(base, features, pairs, "ranker.features=[]").ranker_features == ()
