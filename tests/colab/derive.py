"""Derive versions.txt: what Colab preinstalls of all that our packages need or could move.

Usage: python tests/colab/derive.py PATH_TO_FREEZE     (`pip freeze` as Colab publishes it)

A package is kept when one of two resolutions names it: our packages on Colab's versions, and our
packages on the newest ones (what a resolver would move if it were let). CUDA's packages are left
out: they belong to the build of torch, and Colab's build is another one than the index offers.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CUDA = re.compile(r"(nvidia|cuda|triton)\b")
HEADER = "# {title}\n# Made by tests/colab/derive.py from that list; not by hand.\n"


def freeze_versions(text: str) -> dict[str, str]:
    """Return name -> version of a freeze, without local parts such as ``+cu128``."""
    found = re.findall(r"^([\w.-]+)==([^\s+]+)", text, re.MULTILINE)
    versions = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}
    return {name: version for name, version in versions.items() if not CUDA.match(name)}


def resolve(requirements: list[str], constraints: dict[str, str]) -> set[str]:
    """Return the names a resolver installs on Colab for ``requirements``."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-header"]
    command += ["--no-annotate", "--python-version", "3.13", "--python-platform", "linux"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in constraints.items()))
        file.flush()
        done = subprocess.run(
            [*command, "-c", file.name],
            input="\n".join(requirements),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return {line.partition("==")[0] for line in done.stdout.splitlines() if "==" in line}


def main() -> None:
    """Write versions.txt beside this script."""
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    versions = freeze_versions(text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["colab"]
    ours = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = (
        resolve(extra, versions) | resolve(ours, versions) | resolve(extra, {}) | resolve(ours, {})
    )
    kept = sorted(name for name in names if name in versions)
    title = text.splitlines()[0].removeprefix("#").strip()
    lines = [f"{name}=={versions[name]}" for name in kept]
    (HERE / "versions.txt").write_text(HEADER.format(title=title) + "\n".join(lines) + "\n")
    print(f"kept {len(kept)} of {len(versions)} packages")


if __name__ == "__main__":
    main()
