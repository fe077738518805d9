"""A bundle for `mlflow.pyfunc.load_model`: a table of users in, their items out. MLmodel names this module as its loader."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.bundle.bundle import Bundle
from serving.recommend import recommend_many
from serving.schema import Query

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_K = 10
ROWS_AT_ONCE = 64


class BundleModel:
    """`predict` takes columns `user_id` and, if wanted, `k`; gives lists `item_id` and `score` for each row, best first."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """A user whom the bundle does not know gets what is popular. Raises InputError where a `k` is out of its range."""
        import pandas as pd

        ks = model_input["k"] if "k" in model_input else [DEFAULT_K] * len(model_input)
        pairs = zip(model_input["user_id"], ks, strict=True)
        queries = [Query(user_id=str(user), k=DEFAULT_K if pd.isna(k) else int(k)) for user, k in pairs]
        answers = [
            answer
            for start in range(0, len(queries), ROWS_AT_ONCE)
            for answer in recommend_many(self.bundle, queries[start : start + ROWS_AT_ONCE])
        ]
        columns = {
            "item_id": [[item.item_id for item in answer.items] for answer in answers],
            "score": [[item.score for item in answer.items] for answer in answers],
        }
        return pd.DataFrame(columns, index=model_input.index)


def _load_pyfunc(path: str) -> BundleModel:
    return BundleModel(Bundle.load(Path(path)))
