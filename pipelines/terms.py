"""From a config and a dataset to the further terms of the retriever's loss."""

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.augment.similar_items import similar_items
from recsys.columns import ITEMS_FILE, TRAIN
from recsys.config import ItemViewsConfig, RunConfig
from recsys.data.mutual_information import mutual_information
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.jagged import Jagged, gather
from recsys.models.item_codes import ItemCodes
from recsys.train.contrast_terms import ItemViews, SequenceViews, UserItemPairs
from recsys.train.term import Term


def contrast_terms(config: RunConfig, data: Dataset, codes: ItemCodes) -> tuple[Term, ...]:
    """Those the config asks for. Raises InputError where the log lacks what one reads."""
    part, device, terms = config.retriever, codes.known_I.device, list[Term]()
    if part.sequence_views is not None:
        views = part.sequence_views
        reads = views.first.reads_similar or views.second.reads_similar
        similar_I = _similar(data).to(device) if reads else None
        terms.append(SequenceViews(views.first, views.second, views.loss, views.weight, similar_I))
    if part.item_views is not None:
        items = part.item_views
        terms.append(
            ItemViews(
                items.mask, items.value_dropout, items.items, items.loss, items.weight, codes, _mutual(items, data, codes)
            )
        )
    if part.uniformity is not None:
        terms.append(UserItemPairs(part.uniformity))
    return tuple(terms)


def _similar(data: Dataset) -> Tensor:
    start_U, length_U = data.events(TRAIN)
    timelines = Jagged(gather(data.item_E, start_U, length_U), np.concatenate([[0], np.cumsum(length_U)]))
    similar_I = torch.from_numpy(similar_items(timelines, data.num_items))
    if torch.equal(similar_I, torch.arange(len(similar_I))):
        raise InputError(
            f"{data.folder}: no user of the training split has two different items, so retriever.sequence_views cannot "
            "substitute: choose crop or mask"
        )
    return similar_I


def _mutual(config: ItemViewsConfig, data: Dataset, codes: ItemCodes) -> Tensor:
    """mutual_FF of the tower's features, zeros where the mask does not read it."""
    names = list(codes.features)
    if not config.mask.reads_mutual:
        return torch.zeros(len(names), len(names))
    return torch.from_numpy(mutual_information(pl.read_ipc(data.folder / ITEMS_FILE), names))
