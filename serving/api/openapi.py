"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0) of the table of routes."""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic.json_schema import models_json_schema

from recsys.spec import Spec
from serving.answers import Refusal
from serving.api.examples import ANSWERS, REFUSALS
from serving.api.info import package
from serving.api.routes import Route

REF = "#/components/schemas/{model}"
JSON = "application/json"
DESCRIPTION = """Lists of items for users, made by models that were trained on their log.

Every answer with a status of 400 or more is `{"error": one sentence}`. Where the server was started with API keys, send one as
`Authorization: Bearer KEY` or `X-API-Key: KEY`; each route names the scope that it needs. HEAD works where GET does."""


def document(routes: Sequence[Route]) -> bytes:
    classes = {kind for route in routes for kind in (route.body, route.answer) if isinstance(kind, type)} | {Refusal}
    ordered = sorted(classes, key=lambda kind: kind.__name__)
    _, schemas = models_json_schema([(kind, "validation") for kind in ordered], ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    page = {
        "openapi": "3.1.0",
        "info": {"title": "recsys", "version": package(), "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }
    return json.dumps(page).encode()


def _operation(route: Route) -> dict[str, Any]:
    statuses = [HTTPStatus(int(status)) for status in REFUSALS if _may_give(route, HTTPStatus(int(status)))]
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__name__ if route.path != "/readyz" else "readyz",
        "description": f"Scope: {route.scope or 'none'}",
        "responses": {"200": _answer(route)} | {str(int(status)): _refused(status) for status in statuses},
    }
    if route.scope is not None:
        # With keys or, where the server was started without, with nothing.
        operation["security"] = [{"bearer": []}, {"header": []}, *([{}] if route.scope != "admin" else [])]
    if route.body is not None:
        more: Any = route.body.model_config.get("json_schema_extra", {})
        content = {"schema": {"$ref": REF.format(model=route.body.__name__)}, "example": more.get("example", {})}
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    if route.prefix is not None:
        name = route.path[len(route.prefix) + 1 : -1]
        text = {"type": "string", "minLength": 1, "maxLength": 1000}
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": text, "example": "u1", "description": "percent-encoded"}
        ]
    return operation


def _may_give(route: Route, status: HTTPStatus) -> bool:
    match status:
        case HTTPStatus.UNSUPPORTED_MEDIA_TYPE | HTTPStatus.REQUEST_ENTITY_TOO_LARGE | HTTPStatus.REQUEST_TIMEOUT:
            return route.body is not None
        case HTTPStatus.BAD_REQUEST:
            return route.body is not None or route.prefix is not None
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN | HTTPStatus.TOO_MANY_REQUESTS:
            return route.scope is not None
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return route.may_wait or route.body is not None
        case _:
            return False


def _answer(route: Route) -> dict[str, Any]:
    if isinstance(route.answer, str):
        return {"description": route.summary, "content": {route.answer: {}}}
    content: dict[str, Any] = {"schema": {"$ref": REF.format(model=route.answer.__name__)}}
    if example := ANSWERS.get(route.answer):
        content["example"] = example.model_dump(mode="json")
    return {"description": (route.answer.__doc__ or route.summary).strip().splitlines()[0], "content": {JSON: content}}


def _refused(status: HTTPStatus) -> dict[str, Any]:
    schema: type[Spec] = Refusal
    answer: dict[str, Any] = {
        "description": status.phrase,
        "content": {JSON: {"schema": {"$ref": REF.format(model=schema.__name__)}, "example": {"error": REFUSALS[int(status)]}}},
    }
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        seconds = {"description": "seconds", "schema": {"type": "integer"}}
        answer["headers"] = {"Retry-After": seconds}
    return answer
