"""Paths and URLs of raw files: their formats, their order, and the partition keys in the names of their folders."""

import re
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
TEXT_SUFFIXES = (".csv", ".tsv", ".dat", ".txt", ".inter", ".data")
JSON_SUFFIXES = (".ndjson", ".jsonl")
SUFFIXES = (".parquet", *TEXT_SUFFIXES, *JSON_SUFFIXES)
URL_SCHEMES = ("s3", "gs", "az", "abfss", "hf", "https", "http", "file")
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"

Format = Literal["parquet", "text", "ndjson", "delta"]
Arrives = Literal["together", "by_file", "by_folder"]


def check_path(path: str) -> str:
    """The path of a config, if it stays below the data folder or is a URL that can be read."""
    scheme, is_address, _ = path.partition("://")
    if not is_address:
        if not path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"path {path!r} must be relative to the folder of the raw logs and stay in it, or be a URL")
    elif scheme not in URL_SCHEMES:
        raise ValueError(f"path {path!r} has the unknown scheme {scheme!r}: use one of {', '.join(URL_SCHEMES)}")
    elif suffix_of(path) not in ("", *SUFFIXES):
        raise ValueError(
            f"path {path!r} has the unknown suffix {suffix_of(path)!r}: end it with one of {', '.join(SUFFIXES)}, as in "
            "/*.parquet, or with the folder of a Delta table"
        )
    elif has_wildcard(path) and suffix_of(path) in TEXT_SUFFIXES:
        raise ValueError(f"path {path!r}: text files behind a wildcard have headers to compare, so copy them to a local disk")
    return path


def is_url(path: str) -> bool:
    return "://" in path


def has_wildcard(url: str) -> bool:
    return "*" in url or "[" in url


def suffix_of(path: str) -> str:
    """The suffix that names the format, without that of the compression; Parquet is not compressed again."""
    name = PurePosixPath(urlsplit(path).path if is_url(path) else path)
    inner = name.with_suffix("") if name.suffix.lower() in COMPRESSIONS else name
    suffix = inner.suffix.lower()
    return suffix if inner is name or suffix != ".parquet" else suffix + name.suffix.lower()


def format_of(suffix: str) -> Format:
    if suffix == ".parquet":
        return "parquet"
    if suffix in JSON_SUFFIXES:
        return "ndjson"
    return "text" if suffix else "delta"


def unit_of(name: str, arrives: Arrives) -> str:
    """The unit of arrival that the file of this name belongs to."""
    return {"together": "", "by_file": name, "by_folder": name.rpartition("/")[0]}[arrives]


def natural(name: str) -> list[list[str | int]]:
    """Sorts part-2 before part-10."""
    return [
        [int(piece) if place % 2 else piece for place, piece in enumerate(re.split(r"([0-9]+)", part))]
        for part in name.split("/")
    ]


def partition_keys(name: str) -> dict[str, str | None]:
    """Key -> value of folders named key=value, as Hive and Spark write them."""
    folders = (urlsplit(name).path if is_url(name) else name).split("/")[:-1]
    pairs = (folder.partition("=") for folder in folders if "=" in folder)
    return {key: None if value == NO_VALUE else unquote(value) for key, _, value in pairs if key}
