"""Semantic ids of a run: read them, or make them; what they were made from is checked either way."""

import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import models
from pipelines.workspace import Workspace, check_lineage
from recsys.artefact import is_there, read_manifest, write_artefact
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.generate import assign, quality, stored
from recsys.generate.ids import SemanticIds
from recsys.generate.ids_config import IdsConfig
from recsys.generate.items import Items

if TYPE_CHECKING:
    from recsys.track import Run

KIND = "semantic_ids"
Say = Callable[[str], None]


def semantic_ids(config: RunConfig, data: Dataset, workspace: Workspace, *, ids: IdsConfig | None = None) -> SemanticIds:
    """The ids of the workspace, with ids for items that came since. Raises InputError where config or dataset are others."""
    wanted = _wanted(config, ids)
    folder = workspace.semantic_ids
    manifest = read_manifest(folder, KIND)
    why = _mismatch(wanted, data, workspace)
    if why is not None:
        raise InputError(f"{folder} {why}: run `recsys ids --anew`")
    old, _ = stored.read_ids(folder, manifest["sizes"])
    if old.num_items == data.num_items:
        return old
    return _extended(config, wanted, data, workspace, manifest, old).ids


def build_ids(
    config: RunConfig, data: Dataset, workspace: Workspace, *,
    ids: IdsConfig | None = None, anew: bool = False, say: Say = lambda _: None,
) -> dict[str, Any]:  # fmt: skip
    """Dataset (and retriever) -> ids; returns the artefact's manifest, with `quality`.

    Ids that are there and fit are kept, and get those of new items beside them; else, or with `anew`, all are made anew.
    """
    wanted, folder = _wanted(config, ids), workspace.semantic_ids
    why = "there were none" if not is_there(folder) else _mismatch(wanted, data, workspace)
    if anew or why is not None or _retrained(wanted, workspace):
        return _fit(config, wanted, data, workspace, say)
    manifest = read_manifest(folder, KIND)
    old, _ = stored.read_ids(folder, manifest["sizes"])
    if old.num_items == data.num_items:
        return manifest | {"quality": stored.read_quality(folder)}
    say(f"ids of {data.num_items - old.num_items} new items")
    assigned = _extended(config, wanted, data, workspace, manifest, old)
    kept = {name: manifest[name] for name in ("config", "seed", "retriever", "fitted_to")}
    return _write(wanted, data, workspace, assigned, kept | {"built": f"extended by {data.num_items - old.num_items} items"})


def take_ids(start: Workspace, workspace: Workspace) -> None:
    """The ids of an earlier run, where this one has none: a generator that began with them knows no others."""
    if is_there(workspace.semantic_ids) or not is_there(start.semantic_ids):
        return
    workspace.root.mkdir(parents=True, exist_ok=True)
    scratch = workspace.semantic_ids.with_name(f".{workspace.semantic_ids.name}.taken")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(start.semantic_ids, scratch)
    scratch.rename(workspace.semantic_ids)


def check_past_ids(start: Workspace, workspace: Workspace) -> None:
    """Refuse to begin from a generator whose items have other ids now."""
    folders = (start.semantic_ids, workspace.semantic_ids)
    (old, _), (new, _) = (stored.read_ids(folder, read_manifest(folder, KIND)["sizes"]) for folder in folders)
    if old.levels != new.levels or not np.array_equal(old.code_IT, new.code_IT[: old.num_items]):
        raise InputError(
            f"{folders[0]} gave items other ids than {folders[1]}: take its folder over, or train the generator without --from"
        )


def _fit(config: RunConfig, wanted: IdsConfig, data: Dataset, workspace: Workspace, say: Say) -> dict[str, Any]:
    began = time.perf_counter()
    retriever = check_lineage(workspace, "retriever", data, config)["fingerprint"] if wanted.reads_retriever else None
    what = (
        f"{wanted.vectors.kind} vectors to {wanted.quantizer.kind} codes"
        if wanted.quantizer.reads_vectors
        else "codes of the data"
    )
    say(f"{what} of {data.num_items} items")
    assigned = assign.assign(wanted, _items(config, data, workspace), config.seed)
    fields = {
        "config": wanted.model_dump(mode="json"), "seed": config.seed, "retriever": retriever,
        "fitted_to": data.manifest["data_fingerprint"], "built": "fitted", "seconds": time.perf_counter() - began,
    }  # fmt: skip
    return _write(wanted, data, workspace, assigned, fields)


def _write(
    wanted: IdsConfig, data: Dataset, workspace: Workspace, assigned: assign.Assigned, fields: dict[str, Any]
) -> dict[str, Any]:
    found = quality.quality(wanted, assigned)
    if fields["built"] == "fitted":  # ids that are in use are not refused because a day brought odd items
        quality.check(wanted, found)
    fields |= {"data_fingerprint": data.manifest["data_fingerprint"], "sizes": list(assigned.ids.sizes)}
    with write_artefact(workspace.semantic_ids, KIND, **fields) as (scratch, manifest):
        stored.write(scratch, assigned, data.item_ids, found)
    return manifest | {"quality": found}


def _extended(
    config: RunConfig, wanted: IdsConfig, data: Dataset, workspace: Workspace, manifest: dict[str, Any], old: SemanticIds
) -> assign.Assigned:
    if _retrained(wanted, workspace):
        raise InputError(
            f"{workspace.semantic_ids} was made from another retriever than {workspace.checkpoint('retriever')}, so that "
            "new items have no vectors that fit its codes: run `recsys ids --anew`"
        )
    return assign.extend(wanted, _items(config, data, workspace), old, stored.read_codebook(workspace.semantic_ids))


def log_ids(run: "Run", manifest: dict[str, Any]) -> None:
    """Quality as metrics `ids/NAME`, a plot of the use of each level, and the fingerprint of the ids as a tag."""
    from recsys import plots

    levels = manifest["quality"]["levels"]
    run.metrics({f"ids/{name}": value for name, value in quality.flat(manifest["quality"]).items()})
    run.tag("semantic_ids", manifest["fingerprint"])
    run.document(manifest["quality"], "semantic_ids.json")
    shown = {name: [level[name] for level in levels] for name in ("usage", "entropy", "one_leaf")}
    run.figure(plots.levels(shown, f"Semantic ids, {manifest['quality']['items']:,} items"), "plots/semantic_ids.png")


def _wanted(config: RunConfig, ids: IdsConfig | None) -> IdsConfig:
    if ids is not None:
        return ids
    if config.generator is None:
        raise InputError(f"config {config.name!r} has no `generator` section, so it needs no ids: add one")
    return config.generator.ids


def _mismatch(wanted: IdsConfig, data: Dataset, workspace: Workspace) -> str | None:
    """Why the ids of the workspace cannot serve, if they cannot."""
    manifest = read_manifest(workspace.semantic_ids, KIND)
    if manifest["config"] != wanted.model_dump(mode="json"):
        return "was made with other settings (generator.ids) than this config's"
    known = stored.read_ids(workspace.semantic_ids, manifest["sizes"])[1]
    return None if data.item_ids[: len(known)] == known else f"has ids of other items than those of {data.folder}"


def _retrained(wanted: IdsConfig, workspace: Workspace) -> bool:
    """Whether the ids were made from another retriever than the one that is there."""
    if not wanted.reads_retriever:
        return False
    made_from = read_manifest(workspace.semantic_ids, KIND)["retriever"]
    return bool(read_manifest(workspace.checkpoint("retriever"), "checkpoint")["fingerprint"] != made_from)


def _items(config: RunConfig, data: Dataset, workspace: Workspace) -> Items:
    def vectors() -> np.ndarray:
        from safetensors.torch import load_file

        from recsys.models.retriever import item_vectors
        from recsys.train.loop import MODEL_FILE

        state = load_file(workspace.checkpoint("retriever") / MODEL_FILE)
        found: np.ndarray = item_vectors(state, config.retriever.tower, models.item_codes(config, data)).numpy()
        return found

    return Items(data, vectors)
