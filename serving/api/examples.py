"""Examples of answers for the OpenAPI document: objects of the classes themselves, so that they cannot grow stale."""

from recsys.spec import Spec
from serving.answers import (
    Accepted,
    Alive,
    CanaryFacts,
    Deployed,
    Forgotten,
    Health,
    Info,
    Item,
    ModelInfo,
    Ranked,
    Recommendations,
    Similar,
)

VERSION = "5c1ffa0c7a3b9d20"
ITEM = Item(
    item_id="i7",
    title="Seven Samurai",
    score=0.41,
    retrieval_score=0.83,
    source="retrieval",
    tasks={"click": 0.31, "like": 0.1},
)
NEAR = Item(item_id="i8", title="Ikiru", score=0.92, retrieval_score=0.92, source="retrieval", tasks={})
DEPLOYED = Deployed(live=VERSION, previous="0d9e6b8f11a2c3d4", canary=CanaryFacts(version="77aa0b1c2d3e4f50", share=0.05))
MODEL = ModelInfo(
    name="demo", version=VERSION, tasks=["click", "like"], value={"click": 1.0, "like": 1.0},
    context={"device": ["phone", "tv"]}, category={"genre": ["drama"]}, max_history=50, max_k=200,
)  # fmt: skip
_EXAMPLES: tuple[Spec, ...] = (
    Recommendations(
        request_id="8f6c0e5b6a7d4f2f9f0e3f0c7f1d2a3b", items=[ITEM], fallback=None, flags=[], unknown_items=[], model="demo",
        version=VERSION, arm="live",
    ),
    Ranked(
        request_id="1b2c0e5b6a7d4f2f9f0e3f0c7f1d2a3b", items=[ITEM], flags=[], unknown_items=["gone"], model="demo",
        version=VERSION, arm="live",
    ),
    Similar(items=[NEAR], model="demo", version=VERSION),
    Accepted(accepted=1, duplicates=0, unknown_items=[], flags=[]),
    Forgotten(user_id="u1", events=3),
    Health(status="ok", model="demo", version=VERSION),
    Alive(status="ok"),
    DEPLOYED,
    Info(
        model="demo", version=VERSION, lineage={"raw": "c0ffee", "dataset": "0123456789abcdef", "config": "demo"},
        deployment=DEPLOYED, models={"live": MODEL}, parity_max_error={"retriever": 1.2e-7, "ranker": 6e-8},
        providers=["CPUExecutionProvider"],        replica="3f2a9c11d0e4-4711",
        started="2026-01-31T12:00:00+00:00", package="0.1.0", state="sqlite", refused=None, follow=None,
    ),
)  # fmt: skip
ANSWERS: dict[type, Spec] = {type(example): example for example in _EXAMPLES}

# Status -> a sentence as the server says it.
REFUSALS = {
    400: "k is 0: input should be greater than or equal to 1",
    401: "an API key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
    403: "this key has the scope read: use a key with the scope write",
    408: "the body did not arrive within 15 s: send it faster",
    413: "body is larger than 1000000 bytes: shorten its lists, or post events in several requests",
    415: "content-type is 'text/plain': send application/json",
    429: "10 requests per second are allowed: try again in 1 s",
    503: "256 requests wait already: try again in a second",
}
