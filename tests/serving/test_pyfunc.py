"""A registered bundle through MLflow's own loader: the same items as the endpoint's."""

from pathlib import Path

import pandas as pd
import pytest
from tiny_bundle import build_bundle

from recsys import track
from serving.bundle.bundle import Bundle
from serving.pyfunc import BundleModel
from serving.recommend import recommend
from serving.schema import Query

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:mlflow.*")]


def test_the_champion_answers_as_the_endpoint_does(tmp_path: Path) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    bundle = build_bundle(tmp_path / "bundle")
    with track.start_run("e", "r", data="d", uri=uri) as run:
        run.artefact(bundle, "bundle-1")
        for name, text in track.model_files(run.run_id, "bundle-1", "user-3", max_k=20).items():
            run.text(text, f"bundle-1/{name}")
        assert run.register("tiny", "champion", folder="bundle-1") == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        try:
            model = mlflow.pyfunc.load_model("models:/tiny@champion")
            assert model.input_example.to_dict("list") == {"user_id": ["user-3"], "k": [5]}
            asked = pd.DataFrame({"user_id": ["user-3", "user-7"], "k": [4, 2]})
            answer = model.predict(asked)
            alone = model.predict(asked[["user_id"]])
        finally:
            mlflow.set_tracking_uri(None)
            mlflow.set_registry_uri(None)
    assert model.metadata.signature.inputs.input_names() == ["user_id", "k"]
    assert model.metadata.signature.outputs.input_names() == ["item_id", "score"]
    served = Bundle.load(bundle)
    for user, k, items, scores in zip(asked["user_id"], asked["k"], answer["item_id"], answer["score"], strict=True):
        wanted = recommend(served, Query(user_id=user, k=k)).items
        assert items == [item.item_id for item in wanted]
        assert scores == pytest.approx([item.score for item in wanted])
    assert [len(items) for items in alone["item_id"]] == [10, 10]


def test_an_unknown_user_does_not_refuse_the_others(tmp_path: Path) -> None:
    served = Bundle.load(build_bundle(tmp_path / "bundle"))
    asked = pd.DataFrame({"user_id": ["user-3", "nobody", "user-7"], "k": [4, 3, None]}, index=[5, 6, 7])
    found = BundleModel(served).predict(asked)
    assert found.index.tolist() == [5, 6, 7]
    assert [len(items) for items in found["item_id"]] == [4, 3, 10]
    assert found["item_id"][6] == ["item-0", "item-2", "item-4"]  # what is popular
    assert found["item_id"][5] == [item.item_id for item in recommend(served, Query(user_id="user-3", k=4)).items]


def test_the_folder_stays_a_bundle(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path / "bundle")
    for name, text in track.model_files("r", "bundle-1", "user-3", max_k=20).items():
        (bundle / name).write_text(text)
    assert Bundle.load(bundle).name == "tiny"
