"""The lock files: every dependency with its version and hashes, free of index addresses.

``lock.py`` resolves them anew with uv, ``lock.py --upgrade`` takes the newest versions,
``lock.py --check`` only says whether they still belong to pyproject.toml: each file
begins with a digest of the requirements it was resolved from, so that needs no network.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = "requirements.lock"
DEVELOPMENT = "requirements-dev.lock"


def stamp() -> str:
    """First line of a lock file: what pyproject.toml asks for, as a digest."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = declared["project"]
    asked = [
        project["requires-python"],
        project["dependencies"],
        project["optional-dependencies"],
        declared["dependency-groups"],
    ]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return f"# Written by `make lock` from pyproject.toml, whose requirements have the digest {digest}\n"


def resolve(output: str, *options: str) -> None:
    """Resolve one lock file for every platform and supported Python; keeps what it pins where it can."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--group", "build"]
    command += ["--universal", "--generate-hashes", "--no-header", "--quiet", "--output-file", output]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-index-annotation", *options]
    subprocess.run(command, cwd=ROOT, check=True)
    path = ROOT / output
    path.write_text(stamp() + path.read_text(encoding="utf-8"), encoding="utf-8")


def stale() -> list[str]:
    """Lock files resolved from other requirements than those of today."""
    return [
        name
        for name in (RUNTIME, DEVELOPMENT)
        if not (ROOT / name).read_text(encoding="utf-8").startswith(stamp())
    ]


def main(arguments: list[str]) -> int:
    """Check or rewrite both files; the exit code."""
    if arguments == ["--check"]:
        for name in (old := stale()):
            print(f"{name} is older than the requirements in pyproject.toml: run make lock")
        return int(bool(old))
    resolve(RUNTIME, *arguments)
    resolve(DEVELOPMENT, "--extra", "dev", "--constraint", RUNTIME, *arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
