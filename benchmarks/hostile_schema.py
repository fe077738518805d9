"""Valid and invalid requests that schemathesis makes of the server's own OpenAPI document; answers are held to it."""

from typing import Any

from benchmarks.hostile_client import DOCUMENTED_5XX, Tally

KIND = "schemathesis"


def from_document(url: str, document: dict[str, Any], count: int, seed: int) -> Tally:
    """About `count` requests, shared by all operations. Answers that the document does not have are harm."""
    import requests
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st
    from schemathesis import GenerationMode
    from schemathesis.checks import load_all_checks
    from schemathesis.core.result import Ok
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

    load_all_checks()
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    found = schemathesis.openapi.from_dict(document).get_all_operations()
    operations = [result.ok() for result in found if isinstance(result, Ok)]
    tally = Tally()
    each = settings(
        max_examples=max(1, count // len(operations)), deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with requests.Session() as session:
        for operation in operations:
            asks = operation.body or operation.path_parameters
            modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if asks else (GenerationMode.POSITIVE,)

            @seeded(seed)
            @each
            @given(case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes]))
            def one(case: Any) -> None:
                try:
                    response = case.call(base_url=url, session=session)
                except requests.exceptions.InvalidHeader:
                    return  # nothing was sent
                tally.add(KIND, str(response.status_code), f"{case.method} {case.path} {case.body}")
                if str(response.status_code) != DOCUMENTED_5XX:
                    case.validate_response(response, checks=checks)

            try:
                one()
            except (Exception, BaseExceptionGroup) as error:  # schemathesis raises groups of failures
                tally.harm.append(f"{operation.label}: {error}")
    return tally
