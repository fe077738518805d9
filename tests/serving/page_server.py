"""What the tests of the page ask: servers of one or two versions, and a bundle whose texts try to be markup."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pyarrow as pa
from tiny_bundle import ROWS, build_bundle

from recsys.artefact import read_manifest, write_artefact
from recsys.id_index import write_id_index
from serving.models.deployment import Deployment, Placed, write
from serving.run import free_port, start_background, stop, wait_ready
from serving.settings import Settings

SCRIPT = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(2)>"
LINK = '"><a href="javascript:alert(3)" style="position:fixed">x</a>&lt;b&gt;'
LONG = "W" * 5_000
RIGHT_TO_LEFT = "\u202e\u05e2\u05d1\u05e8\u05d9\u05ea \u202e abc"
EMOJI = "👩‍👩‍👧‍👦🏴‍☠️😀"
HOSTILE = (
    SCRIPT,
    IMAGE,
    LINK,
    LONG,
    RIGHT_TO_LEFT,
    EMOJI,
    "a,b",
    'say "x", y',
    "../../etc/passwd",
    "{{7*7}}${7*7}",
    " ",
    "\u0000\n\t",
)


def ask(url: str, path: str = "/recommend", **body: Any) -> Any:
    """The answer of the API itself, for what the page shows to be held against."""
    request = Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=10) as response:
        return json.load(response)


@contextmanager
def page_server(folder: Path, bundle: Path, previous: Path | None = None, **settings: Any) -> Iterator[str]:
    """The url of a server that keeps its state in `folder`, with `previous` to compare with."""
    write(Deployment(live=_placed(bundle), previous=None if previous is None else _placed(previous)), folder / "live")
    port = free_port()
    process = start_background(Settings(live=folder / "live", **settings), port=port, scratch=folder)
    try:
        wait_ready(f"http://127.0.0.1:{port}", process=process, log=folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def _placed(bundle: Path) -> Placed:
    return Placed(folder=bundle, version=read_manifest(bundle, "bundle")["fingerprint"])


def hostile_bundle(folder: Path) -> Path:
    """The tiny bundle with hostile texts for the ids and titles of items, and for its name."""
    plain = build_bundle(folder / "plain")
    manifest = read_manifest(plain, "bundle")
    with write_artefact(folder / "hostile", "bundle", name=IMAGE, model=manifest["model"], lineage={}) as (scratch, _):
        for name in manifest["files"]:
            shutil.copy(plain / name, scratch / name)
        items = pa.ipc.open_file(plain / "items.arrow").read_all()
        texts = [HOSTILE[row % len(HOSTILE)] for row in range(ROWS)]
        ids = [None, None, *(f"{texts[row][:900]}{row if row >= 2 + len(HOSTILE) else ''}" for row in range(2, ROWS))]
        table = items.set_column(items.column_names.index("item_id"), "item_id", pa.array(ids, pa.string()))
        table = table.set_column(items.column_names.index("title"), "title", pa.array([None, None, *texts[2:]], pa.string()))
        write_id_index(table["item_id"], scratch / "item_index.arrow")
        with pa.ipc.new_file(scratch / "items.arrow", table.schema) as writer:
            writer.write_table(table)
    return folder / "hostile"
