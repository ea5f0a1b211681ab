"""The OpenAPI document, and what the server does with whatever it admits and more: schemathesis makes the requests.

Whatever comes, the answer is none of 5xx, its status and its content type are among those that the document names, and
an error has OpenAI's body.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from chatwheel.store import accounts
from chatwheel.store.accounts import SCOPES
from tests.server.live import make_app

Json = dict[str, Any]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[TestClient, str]]:
    app, database, _ = make_app(tmp_path)
    with database.write() as session:
        local = accounts.local_principal(session)
        key = accounts.create_key(
            session, project_id=local.project_id, user_id=local.user_id, name="k", scopes=SCOPES
        ).secret
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client, key


def test_the_document_tells_what_one_needs(site: tuple[TestClient, str]) -> None:
    client, key = site
    schema = client.get("/openapi.json", headers={"authorization": f"Bearer {key}"}).json()
    assert schema["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    tags = {tag["name"] for tag in schema["tags"]}
    names = set()
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            where = (method, path)
            assert operation["summary"], where
            assert operation["description"].rstrip().endswith((".", "?")), where
            assert set(operation["tags"]) <= tags, where
            assert operation["operationId"] not in names, where
            names.add(operation["operationId"])
            assert "422" not in operation["responses"], where
            opened = path in ("/health", "/ready")
            assert ("401" in operation["responses"]) != opened, where
            signing_in = where in (("get", "/v1/session"), ("post", "/v1/session"))
            assert (operation.get("security") == []) == (opened or signing_in), where


def fuzz(site: tuple[TestClient, str], examples: int) -> int:
    """Sends so many requests to each operation; gives how many there were."""
    client, key = site
    headers = {"authorization": f"Bearer {key}", "host": "localhost"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app, headers=headers)
    count = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        def ask(case: Any) -> None:
            nonlocal count
            count += 1
            case.headers = {
                name: value for name, value in (case.headers or {}).items() if name.lower() not in ("host", "origin")
            }
            response = case.call(session=client, headers=headers)
            where = f"{case.method} {response.request.url}: {response.status_code} {response.text[:300]}"
            case.validate_response(
                response, checks=[not_a_server_error, status_code_conformance, content_type_conformance]
            )
            if response.status_code >= 400:
                error = json.loads(response.text)["error"]
                assert set(error) == {"message", "type", "param", "code"}, where
                assert error["message"], where

        strategies = [
            operation.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        ]
        settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(case=strategies[0] | strategies[1])(ask))()
    return count


def test_no_request_breaks_the_server(site: tuple[TestClient, str]) -> None:
    assert fuzz(site, 6) > 200


@pytest.mark.slow
def test_no_request_of_thousands_breaks_the_server(site: tuple[TestClient, str]) -> None:
    assert fuzz(site, 200) > 2000
