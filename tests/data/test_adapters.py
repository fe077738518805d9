"""The shipped adapters find and read their data: tiny logs of the same columns, and the real ones where they are at hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines.adapters import detect
from pipelines.workspace import CONFIGS
from recsys.columns import TEST
from recsys.config import load
from recsys.data.build import build
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.evaluate import judged_users, retrieval_metrics
from recsys.metrics.floor import Transitions, recommend
from recsys.simulate import Simulation, simulate

T0 = 1_650_000_000
N = 40
USERS = [1 + n % 2 for n in range(N)]
ITEMS = [1 + n % 7 for n in range(N)]
TIMES = [T0 + 60 * n for n in range(N)]

MOVIES = [(1, "Toy Story (1995)", 1995, ["Animation", "Comedy"]), (2, "Misérables, Les (1998)", 1998, ["Drama"])]
FLAGS = ("is_click", "is_follow", "is_comment", "is_forward", "long_view", "is_profile_enter", "label")


def write_ml_1m(folder: Path) -> None:
    ratings = {"user_id": USERS, "movie_id": ITEMS, "rating": [1 + n % 5 for n in range(N)], "timestamp": TIMES}
    pl.DataFrame(ratings).write_parquet(folder / "ratings.parquet")
    users = {"user_id": [1, 2], "gender": ["F", "M"], "age": [1, 56], "occupation": [10, 16], "zip": ["48067", "70072"]}
    pl.DataFrame(users).write_parquet(folder / "users.parquet")
    movies = pl.DataFrame(MOVIES, schema=["movie_id", "title", "year", "genres"], orient="row")
    movies.write_parquet(folder / "movies.parquet")


def write_upstream(folder: Path, source: Path, ratings: pl.DataFrame) -> None:
    """The files of GroupLens from those in Parquet."""

    def write(frame: pl.DataFrame, name: str) -> None:
        lines = frame.select(pl.concat_str(pl.all().cast(pl.String), separator="::")).to_series()
        (folder / name).write_bytes(("\n".join(lines) + "\n").encode("latin-1"))

    write(ratings.select("user_id", "movie_id", "rating", "timestamp"), "ratings.dat")
    write(pl.read_parquet(source / "users.parquet").select("user_id", "gender", "age", "occupation", "zip"), "users.dat")
    movies = pl.read_parquet(source / "movies.parquet").select("movie_id", "title", pl.col("genres").list.join("|"))
    write(movies, "movies.dat")


def write_ml_1m_upstream(folder: Path) -> None:
    source = folder / "source"
    source.mkdir()
    write_ml_1m(source)
    write_upstream(folder, source, pl.read_parquet(source / "ratings.parquet"))


def write_kuairand(folder: Path) -> None:
    flags = {name: [int(n % (place + 2) == 0) for n in range(N)] for place, name in enumerate(FLAGS)}
    times = {"time_ms": [time * 1000 + 7 for time in TIMES], "duration_ms": [n % 3 * 9000 for n in range(N)]}
    pl.DataFrame({"user_id": USERS, "video_id": ITEMS, **times, **flags}).write_parquet(folder / "log.parquet")


def write_retailrocket(folder: Path) -> None:
    behaviour = pl.Series(["view", "cart", "buy", "view"] * (N // 4), dtype=pl.Categorical)
    log = {"user": USERS, "item": ITEMS, "timestamp": TIMES, "behaviour": behaviour}
    pl.DataFrame(log).write_parquet(folder / "train.parquet")


def write_goodbooks(folder: Path) -> None:
    ratings = pl.DataFrame({"book_id": ITEMS, "user_id": USERS, "rating": [1 + n % 5 for n in range(N)]})
    ratings.sort("book_id").unique(maintain_order=True).write_parquet(folder / "ratings.parquet")
    books = {
        "id": [1, 2, 3], "book_id": [900, 3, 7], "title": ["One", "Two", "Three"],
        "authors": ["A. One, B. Two", "C. Three", "A. One"],
        "language_code": ["eng", "en-US", None], "original_publication_year": [2008.0, None, -750.0],
    }  # fmt: skip
    pl.DataFrame(books).write_parquet(folder / "books.parquet")


def write_demo(folder: Path) -> None:
    simulate(Simulation(users=40, items=60, events=8_000, days=3), folder / "raw")
    for path in (folder / "raw").iterdir():
        path.rename(folder / path.name)


def write_sequences(folder: Path) -> None:
    sequences = {"user": [1, 2, 3, 4], "items": [[5, 3, 1], [1, 2, 3, 4, 5], [4, 3], [2, 4, 1]]}
    pl.DataFrame(sequences).write_parquet(folder / "sequences.parquet")


def write_s3rec_beauty(folder: Path) -> None:
    write_sequences(folder)
    pl.DataFrame({"item": [1, 2, 5], "attributes": [[3, 1], [1], [2]]}).write_parquet(folder / "item_attributes.parquet")


def write_apao_office(folder: Path) -> None:
    write_sequences(folder)
    items = {
        "item": [1, 2], "title": ["Phone, White/Grey (2 pack)", "Desk LAMP"], "brand": ["VTech", ""],
        "categories": ["Office Electronics, Telephones & Accessories", "Lamps"], "description": ["", "Bright."],
    }  # fmt: skip
    pl.DataFrame(items).write_parquet(folder / "items.parquet")


TINY = {
    "apao-office": write_apao_office, "s3rec-beauty": write_s3rec_beauty,
    "demo": write_demo, "goodbooks": write_goodbooks, "kuairand": write_kuairand, "ml-1m": write_ml_1m,
    "ml-1m-upstream": write_ml_1m_upstream, "retailrocket": write_retailrocket,
}  # fmt: skip
REAL = {
    "ml-1m": "ml-1m", "kuairand": "kuairand_kcore15", "retailrocket": "retailrocket_mb", "goodbooks": "goodbooks-10k_v1",
    "s3rec-beauty": "s3rec_beauty", "apao-office": "apao_office",
}  # fmt: skip


def test_every_shipped_config_is_tried_here() -> None:
    assert sorted(TINY) == sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    assert all(load(CONFIGS / f"{name}.yaml").name == name for name in TINY)


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_log_is_recognised_and_prepared(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    TINY[name](folder)
    assert detect(folder).stem == name
    config = load(CONFIGS / f"{name}.yaml")
    manifest = build(config.data, folder, tmp_path / "dataset")
    assert manifest["report"]["rows_quarantined"] <= 0.01 * manifest["report"]["rows_read"]
    assert all(facts["labelled"] for facts in manifest["report"]["tasks"].values())
    data = Dataset(tmp_path / "dataset")
    assert data.tasks == list(config.tasks)
    assert all(feature["size"] > 2 for feature in data.features)


def test_values_of_the_tiny_logs(tmp_path: Path) -> None:
    found = {}
    for name in ("ml-1m-upstream", "kuairand", "goodbooks", "apao-office", "s3rec-beauty"):
        (tmp_path / name).mkdir()
        TINY[name](tmp_path / name)
        build(load(CONFIGS / f"{name}.yaml").data, tmp_path / name, tmp_path / name / "dataset")
        found[name] = Dataset(tmp_path / name / "dataset")
    assert found["ml-1m-upstream"].vocabulary("item", "year") == ["1995", "1998"]
    assert found["ml-1m-upstream"].vocabulary("item", "genres") == ["Animation", "Comedy", "Drama"]
    # Of a video's rows the first duration above 0 counts, so every video has one of the two.
    assert set(found["kuairand"].vocabulary("item", "duration")) == {"7 to 15 s", "15 to 30 s"}
    assert (found["kuairand"].codes("duration", "item").item_E[2:] >= 2).all()
    books = found["goodbooks"]
    assert books.vocabulary("item", "author") == ["A. One", "C. Three"]
    assert books.vocabulary("item", "language") == ["en"]
    assert books.vocabulary("item", "decade") == ["-750", "2000"]
    beauty, office = found["s3rec-beauty"], found["apao-office"]
    assert [beauty.item_ids[i] for i in beauty.item_E] == [str(i) for i in (5, 3, 1, 1, 2, 3, 4, 5, 4, 3, 2, 4, 1)]
    assert beauty.train_length_U.tolist() == [0, 0, 1, 3, 2, 1]
    assert beauty.codes("attributes", "item").slice(2, 4).item_E.tolist() == [4, 2, 2]  # of items 1 and 2, in the table's order
    assert office.vocabulary("item", "categories") == ["Lamps", "Office Electronics", "Telephones & Accessories"]
    assert office.vocabulary("item", "title_words") == ["2", "desk", "grey", "lamp", "pack", "phone", "white"]
    assert office.codes("brand", "item").item_E.tolist() == [1, 1, 2, 1, 1, 1, 1]  # an empty brand is unknown


def test_the_order_of_goodbooks_tells_nothing(tmp_path: Path) -> None:
    """Neither the number of a book nor the book before says which one is held out."""
    pairs = [(book, user) for book in range(1, 41) for user in range(400)]
    ratings = pl.DataFrame(pairs, schema={"book_id": pl.Int32, "user_id": pl.Int32}, orient="row")
    ratings.with_columns(rating=pl.col("book_id") % 5 + 1).write_parquet(tmp_path / "ratings.parquet")
    books = {"id": [1], "title": ["One"], "authors": ["A"], "language_code": ["en"], "original_publication_year": [2008.0]}
    pl.DataFrame(books).write_parquet(tmp_path / "books.parquet")
    build(load(CONFIGS / "goodbooks.yaml").data, tmp_path, tmp_path / "dataset")
    data = Dataset(tmp_path / "dataset")
    order = np.array([int(data.item_ids[i] or 0) for i in data.item_E]).reshape(400, 40)
    assert abs(order[:, -1].mean() - 20.5) < 2  # 3.5 standard deviations of the mean of 400 draws from 1..40
    following = order[:, 1:][order[:, :-1] == 7]
    assert np.bincount(following).max() < 0.1 * len(following)


def test_a_folder_that_fits_nothing_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it holds none of sequences\.parquet, events, ratings\.parquet, log\.parquet"):
        detect(tmp_path)
    write_ml_1m(tmp_path)
    (tmp_path / "users.parquet").unlink()
    with pytest.raises(InputError, match=r"goodbooks: .*no column 'book_id'.*; ml-1m: .*users\.parquet does not exist"):
        detect(tmp_path)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        detect(tmp_path / "nowhere")


def test_a_folder_that_fits_two_configs_is_not_guessed(tmp_path: Path) -> None:
    write_kuairand(tmp_path)
    write_retailrocket(tmp_path)
    with pytest.raises(InputError, match=r"fits several shipped configs \(kuairand, retailrocket\): choose one with --config"):
        detect(tmp_path)


@pytest.mark.parametrize("name", REAL)
def test_real_data_is_recognised(name: str, real_data: Callable[[str], Path]) -> None:
    assert detect(real_data(REAL[name])).stem == name


REPORTS = {  # rows read, quarantined, users, items, timeline events
    "ml-1m": (1_000_209, 0, 6_040, 3_706, 1_000_209),
    "kuairand": (41_828, 124, 664, 9_359, 36_960),
    "retailrocket": (97_381, 0, 2_174, 29_905, 97_381),
    "goodbooks": (981_756, 1_644, 53_424, 10_000, 980_112),
    "s3rec-beauty": (198_502, 0, 22_363, 12_101, 198_502),
    "apao-office": (53_258, 0, 4_905, 2_420, 53_258),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_is_read_whole(name: str, real_data: Callable[[str], Path], tmp_path: Path) -> None:
    report = build(load(CONFIGS / f"{name}.yaml").data, real_data(REAL[name]), tmp_path / "dataset")["report"]
    counts = tuple(report[key] for key in ("rows_read", "rows_quarantined", "users", "items", "timeline_events"))
    assert counts == REPORTS[name]


def test_movielens_is_the_same_in_both_forms(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """A sample of users, written as GroupLens does, gives the files that the Parquet files give."""
    source = real_data("ml-1m")
    ratings = pl.read_parquet(source / "ratings.parquet").filter(pl.col("user_id") % 40 == 0)
    parquet, upstream = tmp_path / "parquet", tmp_path / "upstream"
    for folder in (parquet, upstream):
        folder.mkdir()
    ratings.write_parquet(parquet / "ratings.parquet")
    for name in ("users.parquet", "movies.parquet"):
        (parquet / name).symlink_to((source / name).resolve())
    write_upstream(upstream, source, ratings)
    one = build(load(CONFIGS / "ml-1m.yaml").data, parquet, tmp_path / "one")
    other = build(load(CONFIGS / "ml-1m-upstream.yaml").data, upstream, tmp_path / "other")
    assert one["files"] == other["files"]


def test_the_order_of_movielens_is_the_one_published_splits_use(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """By time, ties by place in the file, written out in plain Python for some users."""
    source = real_data("ml-1m")
    build(load(CONFIGS / "ml-1m.yaml").data, source, tmp_path / "dataset")
    data = Dataset(tmp_path / "dataset")
    ratings = pl.read_parquet(source / "ratings.parquet", columns=["user_id", "movie_id", "timestamp"])
    for user in (1, 42, 4169):  # 4169 has the longest timeline
        rows = ratings.filter(user_id=user).select("movie_id", "timestamp").rows()
        expected = [str(movie) for movie, _ in sorted(rows, key=lambda row: row[1])]  # Python's sort keeps ties in place
        dense = data.user_ids.index(str(user))
        timeline = data.timelines.slice(dense, dense + 1).item_E
        assert [data.item_ids[i] for i in timeline] == expected


def test_the_split_of_beauty_is_the_published_one(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """Transitions counted in training and validation reach HR@10 .0757 and NDCG@10 .0503 by an independent script."""
    build(load(CONFIGS / "s3rec-beauty.yaml").data, real_data("s3rec_beauty"), tmp_path / "dataset")
    data = Dataset(tmp_path / "dataset")
    judged = judged_users(data, TEST, filter_seen=True)
    scorer = Transitions.fit(data.timelines.drop_last(1), data.num_items)
    item_UK = recommend(scorer, judged.history, data.num_items, 10, filter_seen=True)
    means, _ = retrieval_metrics(item_UK, judged, [10], data.num_items)
    assert (round(means["HR@10"], 4), round(means["NDCG@10"], 4)) == (0.0757, 0.0503)
