"""docs/api.md is what the application says of itself."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "write_api.py"))


@pytest.fixture(scope="module")
def text(script: dict[str, Any]) -> str:
    return str(script["written"]())


def test_the_reference_is_up_to_date(text: str) -> None:
    assert text == (DOCS / "api.md").read_text(encoding="utf-8"), "run `python docs/write_api.py`"


def test_every_endpoint_field_and_scope_is_there(script: dict[str, Any], text: str, tmp_path: Path) -> None:
    app = script["application"](tmp_path)
    document = app.openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            title = f"### `{method.upper()} {path}`\n"
            assert text.count(title) == 1
            part = text.split(title)[1].split("\n### ")[0]
            assert operation["description"].split("\n")[0][:40] in part
            for content in operation.get("requestBody", {}).get("content", {}).values():
                # One takes any JSON, which its own words describe.
                for field in script["resolved"](document, content["schema"]).get("properties", {}):
                    assert f"| `{field}` |" in part
    known = {
        line.split("`")[1] for line in text.split("| scope |")[1].split("## Errors")[0].splitlines() if "`" in line
    }
    assert known == set(script["SCOPES"])
    for scope in re.findall(r"^Scope: `(\w+)`\.$", text, re.MULTILINE):
        assert scope in known
    assert not re.search(r"^Any key\.$", text.split("## Usage and costs")[0], re.MULTILINE)


def test_links_lead_somewhere(text: str) -> None:
    titles = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in re.findall(r"^#+ .*", text, re.M)
    }
    links = re.findall(r"\]\(#([\w-]+)\)", text)
    assert len(links) > 20
    assert set(links) <= titles
    for name in re.findall(r"\]\((\w[\w./-]*)\)", text):
        assert (DOCS / name).exists()


def test_examples_name_endpoints_and_methods_that_there_are(text: str) -> None:
    paths = re.findall(r"^### `\w+ /v1(\S+)`", text, re.MULTILINE)
    shell = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in [block.replace("\\\n", " ")]]
    asked = [part for block in shell[1:] for part in shlex.split(block) if part.startswith("$OPENAI_BASE_URL/")]
    assert len(asked) > 5
    patterns = [re.sub(r"{[^}]*}", "[^/]+", path) for path in paths]
    for address in asked:
        path = address.removeprefix("$OPENAI_BASE_URL").split("?")[0]
        assert any(re.fullmatch(pattern, path) for pattern in patterns), path
    client = OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none")
    called = re.findall(r"\bclient((?:\.\w+)+)\(", text)
    assert len(called) > 6
    for names in called:
        found: Any = client
        for name in names.strip(".").split("."):
            found = getattr(found, name)
        assert callable(found)
