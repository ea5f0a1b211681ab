"""The page, the report, and the headers that protect them."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from chatwheel.server.routes.page import STATIC
from tests.server.conftest import Site

built = pytest.mark.skipif(not (STATIC / "index.html").is_file(), reason="the page is not built: run `make setup`")


@built
def test_the_page_loads_only_what_is_its_own(site: Site) -> None:
    response = site.client.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert "<script>" not in response.text


@built
def test_assets_may_be_kept_for_ever_and_the_page_may_not(site: Site) -> None:
    assert site.client.get("/").headers["cache-control"] == "no-cache"
    script = next((STATIC / "assets").glob("*.js")).name
    response = site.client.get(f"/assets/{script}")
    assert "immutable" in response.headers["cache-control"]
    assert "javascript" in response.headers["content-type"]


@built
def test_the_page_is_small() -> None:
    """What is fetched before the first paint, as it is sent; the rest is fetched where it is needed."""
    page = (STATIC / "index.html").read_text()
    first = [STATIC / "index.html", *(STATIC / name for name in re.findall(r'(?:src|href)="\./([^"]+)"', page))]
    assert len(first) >= 5
    assert sum(len(gzip.compress(file.read_bytes())) for file in first) < 150_000
    assert sum(file.stat().st_size for file in STATIC.rglob("*") if file.is_file()) < 2_000_000


@pytest.mark.parametrize(
    "path", ["/assets/../../app.py", "/assets/%2e%2e%2fapp.py", "/..%2fapp.py", "/.sources.sha256", "/assets", "/x%00y"]
)
def test_nothing_else_is_served(site: Site, path: str) -> None:
    assert site.client.get(path).status_code == 404


def test_a_page_that_is_not_built_says_how(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("chatwheel.server.routes.page.STATIC", tmp_path)
    response = site.client.get("/")
    assert response.status_code == 503
    assert "make setup" in response.text


def test_the_report_runs_no_script_and_has_an_origin_of_its_own(site: Site) -> None:
    assert site.client.get("/report").status_code == 404
    folder = site.models.root.parent / "runs" / "quickstart"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<h1>Run</h1>")
    response = site.client.get("/report")
    assert "<h1>Run</h1>" in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "sandbox" in policy
    assert "allow-same-origin" not in policy
    assert site.client.get("/api/models").json()["report"] == "/report"


def test_answers_of_the_api_are_never_kept(site: Site) -> None:
    assert site.client.get("/api/conversations").headers["cache-control"] == "no-store"
