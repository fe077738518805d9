import pytest

from recsys.metrics.direction import direction


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("NDCG@10", 1), ("test/NDCG@10", 1), ("test/NDCG:10", 1), ("test/MAP@20", 1),
        ("test/NDCG@10/generator", 1), ("retriever/valid/NDCG@10", 1),
        ("test/PR-AUC/click", 1), ("AUC/like", 1), ("test/coverage@10", 1), ("test/ILD@10", 1), ("slice/tail/NDCG@10", 1),
        ("test/NE/click", -1), ("test/Gini@10", -1), ("test/category_calibration@10", -1), ("test/RMSE/dwell", -1),
        ("export/parity_max_error", -1), ("export/latency_p99_ms", -1), ("export/bundle_mib", -1), ("cost/train_s", -1),
        ("cost/examples_per_s/retriever", 1),
        ("cost/train_s/retriever", -1), ("cost/parameters", -1), ("retriever/loss", -1),
        ("test/popularity_lift@10", 0), ("test/rankme", 0), ("test/AUC_low/click", 0), ("retriever/learning_rate", 0),
        ("floor/popularity/NDCG@10", 0), ("floor/popularity/Gini@10", 0),
        # What a user names may be called as a metric is.
        ("test/AUC_low/loss", 0), ("slice/map/popularity_lift@10", 0), ("slice/loss/HR@10", 1), ("test/AUC/ne", 1),
    ],
)  # fmt: skip
def test_names_say_which_way_is_better(name: str, wanted: int) -> None:
    assert direction(name) == wanted
