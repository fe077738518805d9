"""The endpoint of one process, without HTTP: state -> candidates -> filters -> ranking -> reranking -> answer -> journal."""

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import Callable

import numpy as np

from recsys.columns import FIRST_ID
from recsys.errors import InputError
from serving.answers import Accepted, Forgotten, Ranked, Recommendations, Similar
from serving.batcher import Batcher, QueueFullError
from serving.bundle.bundle import Bundle
from serving.cascade.answer import answer
from serving.cascade.asked import Asked, check_k, resolve
from serving.cascade.rank import rank
from serving.cascade.score import Scored, nothing, score
from serving.cascade.similar import similar
from serving.catalogue.catalogue import Catalogue
from serving.error_memory.memories import Memories
from serving.journal.journal import Journal
from serving.models.models import Chosen, Models
from serving.schema import Asker, Events, Query, RankQuery, SimilarQuery
from serving.settings import Settings
from serving.state.open import open_store
from serving.state.reconciler import Reconciler
from serving.state.store import Live

Observe = Callable[[Recommendations, Bundle, dict[str, float]], None]
logger = logging.getLogger("recsys.serving")


class Endpoint:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = Models(settings.live, threads=settings.threads, max_batch=settings.max_batch)
        self.batcher = Batcher(
            score, max_batch=settings.max_batch, max_queue=settings.max_queue, timeout_s=settings.deadline_ms / 1000
        )
        self.asking = 0  # questions that are being answered
        self.catalogue = Catalogue(settings.catalogue)
        self.journal = (
            Journal(settings.live / "journal", fsync=settings.fsync, logged_requests=settings.logged_requests)
            if settings.journal
            else None
        )
        self.state = Reconciler(open_store(settings), self.journal, ttl_s=settings.ttl_s)
        self.errors = Memories(self.journal, lambda: self.models.held.places.values(), by_requests=settings.clock == "requests")
        self.rng = np.random.default_rng()
        self._process, self._numbers = uuid.uuid4().hex, itertools.count()  # together the ids of requests
        self.observe: Observe | None = None  # told of every list: what was served, by which bundle, milliseconds by stage
        self.ready = True

    async def recommend(self, query: Query) -> Recommendations:
        self.asking += 1
        try:
            return await self._recommend(query)
        finally:
            self.asking -= 1

    async def _recommend(self, query: Query) -> Recommendations:
        request_id, began = self._request_id(), time.perf_counter()
        chosen = self._choose(query, request_id)
        check_k(chosen.bundle, query)
        live = await self._recent(query)
        stages_ms = {"state": (time.perf_counter() - began) * 1000}
        await self.errors.until(query.time_ms)
        asked = resolve(chosen.bundle, query, live, self.catalogue, self.errors.of(chosen.bundle))
        scored = await self._score(chosen.bundle, asked, query.k)
        stages_ms["graphs"] = (time.perf_counter() - began) * 1000 - stages_ms["state"]
        found = answer(
            chosen.bundle, query, asked, scored,
            request_id=request_id, arm=chosen.arm, rng=self.rng, stages_ms=stages_ms,
        )  # fmt: skip
        stages_ms["rerank"] = (time.perf_counter() - began) * 1000 - stages_ms["state"] - stages_ms["graphs"]
        if found.explanation is not None:
            found.explanation.stages_ms["rerank"] = stages_ms["rerank"]
        asyncio.get_running_loop().call_soon(self._note, query, chosen.bundle, asked, scored, found, stages_ms)
        return found

    def _note(
        self,
        query: Query,
        bundle: Bundle,
        asked: Asked,
        scored: Scored | None,
        found: Recommendations,
        stages_ms: dict[str, float],
    ) -> None:
        """Journal and metrics of a list. Called in the next turn of the loop: when the list has gone out, and before any other
        request is read."""
        began = time.perf_counter()
        if self.journal is not None:
            self.journal.served(query, bundle, asked, scored, found)
        stages_ms["journal"] = (time.perf_counter() - began) * 1000
        if self.observe is not None:
            self.observe(found, bundle, stages_ms)

    async def rank(self, query: RankQuery) -> Ranked:
        request_id = self._request_id()
        chosen = self._choose(query, request_id)
        live = await self._recent(query)
        await self.errors.until(query.time_ms)
        asked = resolve(chosen.bundle, query, live, self.catalogue, self.errors.of(chosen.bundle))
        return await asyncio.to_thread(rank, chosen.bundle, query, asked, request_id=request_id, arm=chosen.arm)

    async def similar(self, query: SimilarQuery) -> Similar:
        bundle = self.models.choose(self._request_id(), query.version).bundle
        sold_1I = self.catalogue.shelf(bundle).row(int(time.time() * 1000))
        return await asyncio.to_thread(similar, bundle, query, sold_1I)

    async def add(self, posted: Events) -> Accepted:
        """Keep events: in the journal before anything is acknowledged, then in the state. Raises JournalDownError."""
        added, is_in_store = await self.state.add(posted.events)
        bundle = self.models.live
        unknown = [each.item_id for each in posted.events if bundle.item_index.find(each.item_id) < FIRST_ID]
        return Accepted(
            accepted=sum(added),
            duplicates=len(added) - sum(added),
            unknown_items=list(dict.fromkeys(unknown)),
            flags=[] if is_in_store else ["state_unavailable"],
        )

    async def forget(self, user_id: str) -> Forgotten:
        deleted, is_in_store = await self.state.forget(user_id)
        return Forgotten(user_id=user_id, events=deleted, flags=[] if is_in_store else ["state_unavailable"])

    async def close(self) -> None:
        self.ready = False
        self.models.close()
        self.batcher.close()
        await self.errors.close()
        await self.state.close()

    def _request_id(self) -> str:
        return f"{self._process}{next(self._numbers):x}"

    def _choose(self, asker: Asker, request_id: str) -> Chosen:
        return self.models.choose(asker.user_id or request_id, asker.version)

    async def _recent(self, asker: Asker) -> Live:
        """The user's recent events; not whole where the state does not tell in time."""
        return Live() if asker.user_id is None else await self.state.recent(asker.user_id)

    async def _score(self, bundle: Bundle, asked: Asked, k: int) -> Scored | None:
        if not len(asked.history_L):
            return nothing(bundle)
        try:
            await asyncio.sleep(0)  # who has sent a question by now is counted, and goes with this one
            return await self.batcher.submit(bundle, asked, k, alone=self.asking == 1)
        except (InputError, QueueFullError):
            raise
        except Exception:
            logger.exception("the model failed")
            return None
