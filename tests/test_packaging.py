"""The lists install everywhere, the set-up survives an interruption, the wheel is whole."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import nbformat
import notebook_gates as gates
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.course.badges import repository
from shared.course.notebooks import find_lessons
from shared.course.setup_cell import setup_cell

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ROOT / "tests" / "colab" / "versions.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRA = [Requirement(line) for line in PROJECT["optional-dependencies"]["colab"]]
CLUSTER = {
    canonicalize_name(Requirement(line).name)
    for line in PROJECT["optional-dependencies"]["cluster"]
}
"""What only a Ray cluster needs, and what is imported only when one is asked for."""
ACCOUNT = {"modal"}
"""What only its vendor's account makes use of; the file that imports it says how to install it."""
PLATFORMS = ("linux", "windows", "macos")
PYTHONS = ("3.11", "3.12", "3.13")
OFFLINE = ("error sending request", "dns error", "failed to fetch", "connection", "network")


def pins(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in found}


def requirements() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line.split("#")[0]) for line in lines if line and line[0] != "#"]
    return {canonicalize_name(requirement.name): requirement for requirement in wanted}


def uv(*arguments: str, given: str = "") -> subprocess.CompletedProcess:
    """Run uv in the checkout; it resolves and builds without touching this environment."""
    # macOS 14 is what torch's wheels for Apple silicon ask for.
    environ = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    done = subprocess.run(
        [sys.executable, "-m", "uv", *arguments],
        cwd=ROOT,
        env=environ,
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done


def refuse_failure(done: subprocess.CompletedProcess, message: str) -> None:
    """Fail with what the reader meets; skip where there is no index to ask, but never in CI."""
    offline = done.returncode and any(sign in done.stderr.lower() for sign in OFFLINE)
    if offline and not os.environ.get("CI"):
        pytest.skip("the package index cannot be reached: nothing was resolved")
    assert done.returncode == 0, f"{message}\n{done.stderr}"


COMPILE = ("pip", "compile", "--quiet", "--no-header", "--no-annotate")


@functools.cache
def resolutions() -> dict[tuple[str, str, bool], subprocess.CompletedProcess]:
    """All dry runs at once. One asks the index what is new; the others need little beyond that."""
    uv(*COMPILE, "requirements.txt", "--universal", "--python-version", "3.11")

    def resolve(key: tuple[str, str, bool]) -> subprocess.CompletedProcess:
        platform, python, pinned = key
        command = [*COMPILE, "requirements.txt", "--only-binary", ":all:"]
        command += ["--python-platform", platform, "--python-version", python]
        command += ["-c", "constraints.txt"] if pinned else []
        cached = uv(*command, "--offline")
        return uv(*command) if cached.returncode else cached

    keys = [(s, p, pinned) for s in PLATFORMS for p in PYTHONS for pinned in (True, False)]
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(keys, pool.map(resolve, keys), strict=True))


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "newest"])
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_requirements_resolve(platform: str, python: str, pinned: bool) -> None:
    """Incident: a pin that only exists for Linux; nobody on a Mac could start the course."""
    done = resolutions()[platform, python, pinned]
    refuse_failure(done, f"pip fails for readers with Python {python} on {platform}")


def test_every_requirement_has_a_floor_and_a_reason() -> None:
    """Incident: nobody knew why a package was there, so nobody dared to remove it."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    bad = [x for x in lines if x and x[0] != "#" and not re.match(r"[\w-]+>=[\d.]+\s+# \S", x)]
    assert not bad, f"lines without a floor or a reason: {bad}"


def test_constraints_pin_every_requirement_within_its_range() -> None:
    """Incident: the pinned set was below a floor; pip gave up after backtracking for minutes."""
    pinned = pins(ROOT / "constraints.txt")
    for name, requirement in requirements().items():
        assert name in pinned, f"{name} is not pinned; run: make constraints"
        assert requirement.specifier.contains(pinned[name]), f"{requirement}, but {pinned[name]}"
    assert pinned["torch"] == "2.13.0", "a looser torch makes CI download gigabytes of CUDA"


def test_installed_versions_are_the_pinned_ones() -> None:
    """Incident: tests passed with what somebody had installed by hand, not with the pins."""
    pinned = pins(ROOT / "constraints.txt")
    here = {canonicalize_name(d.name): d.version.split("+")[0] for d in metadata.distributions()}
    other = {n: (here[n], v) for n, v in pinned.items() if n in here and here[n] != v}
    assert not other, f"installed, pinned: {other}; run: make clean test"


@pytest.mark.parametrize("name", ["requirements.txt", "constraints.txt", "pyproject.toml"])
def test_lists_name_no_index(name: str) -> None:
    """Incident: an index inside a company's network was committed; nobody else could install."""
    text = (ROOT / name).read_text(encoding="utf-8").replace(repository(ROOT), "")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|file:", text)


# Colab


def test_setup_cell_moves_nothing_on_colab() -> None:
    """Incident: the first cell upgraded numpy; Colab asked for a restart."""
    line = re.search(r'pip install -q "(.+?) @ git\+', setup_cell(repository(ROOT)))
    assert line.group(1) == f"{PROJECT['name']}[colab]", "the setup cell installs something else"
    target = ["--python-platform", "linux", "--python-version", "3.13"]
    wanted = f"{line.group(1)} @ {ROOT.as_uri()}"
    done = uv(*COMPILE, "-", *target, "-c", str(VERSIONS), given=wanted)
    refuse_failure(done, "the setup cell fails on Colab, or moves what is preinstalled")
    resolved = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    moved = {n: v for n, v in pins(VERSIONS).items() if resolved.get(n, v) != v}
    assert not moved, f"readers on Colab get other versions than those preinstalled: {moved}"
    absent = {canonicalize_name(requirement.name) for requirement in EXTRA}
    assert absent <= set(resolved), "the extra is not installed at all"
    assert not absent & set(pins(VERSIONS)), "the extra names packages that Colab has"


def test_floors_admit_colab() -> None:
    """Incident: a floor above Colab's version; the check went red for a lesson that ran fine."""
    versions = pins(VERSIONS)
    refused = {
        name: versions[name]
        for name, requirement in requirements().items()
        if name in versions and not requirement.specifier.contains(versions[name])
    }
    assert not refused, f"requirements.txt refuses what Colab has: {refused}"


def _imported() -> dict[str, str]:
    """Return distribution -> one place that imports it, for `shared` and the lessons."""
    sources = {str(p.relative_to(ROOT)): p.read_text() for p in (ROOT / "shared").rglob("*.py")}
    for lesson in find_lessons(ROOT):
        cells = gates.code_cells(nbformat.read(lesson.path, as_version=4))
        sources[lesson.name] = "\n".join(gates.python(cell) for cell in cells)
    known, found = metadata.packages_distributions(), {}
    for place, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - {"shared", "google"}:
                if top not in sys.stdlib_module_names:
                    found[canonicalize_name(known.get(top, [top])[0])] = place
    return found


def test_everything_imported_is_required() -> None:
    """Incident: a package came along with another one, until that one stopped needing it."""
    known = set(requirements()) | CLUSTER | ACCOUNT
    missing = {n: place for n, place in _imported().items() if n not in known}
    assert not missing, f"imported, but not in requirements.txt: {missing}"


def test_everything_imported_is_on_colab_or_installed_there() -> None:
    """Incident: a lesson imported a package that only local set-ups have."""
    there = set(pins(VERSIONS)) | {canonicalize_name(r.name) for r in EXTRA} | CLUSTER | ACCOUNT
    missing = {n: place for n, place in _imported().items() if n not in there}
    assert not missing, f"ModuleNotFoundError on Colab (add it to the extra `colab`): {missing}"


def test_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    """Incident: Colab installs a wheel, and the wheel lacked the data the package reads."""
    shutil.copytree(ROOT / "shared", tmp_path / "shared")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = uv("build", "--wheel", "--quiet", "--out-dir", str(tmp_path), str(tmp_path))
    refuse_failure(done, "the package does not build: nothing works on Colab")
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "shared").rglob("*") if p.is_file()}
    missing = {name for name in files - packed if "__pycache__" not in name}
    assert not missing, f"readers on Colab miss {missing} (package-data in pyproject.toml)"


# The set-up


@pytest.fixture
def make(tmp_path: Path):
    """Return a function that runs make in a copy of the Makefile with a pretended Python."""
    if not shutil.which("make"):
        pytest.skip("there is no make here")
    for name in ("Makefile", "requirements.txt", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "pretended"
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "  *version_info*) exit ${TOO_OLD:-0};;\n"
        '  "-m venv"*) mkdir -p $3/bin && cp $0 $3/bin/python;;\n'
        '  *"pip install"*) exit ${NO_NETWORK:-0};;\n'
        '  "-m shared"*) echo "ran $*";;\n'
        "esac\n"
    )
    python.chmod(0o755)

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess:
        command = ["make", f"PYTHON={python}", *arguments]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        return subprocess.run(
            command, cwd=tmp_path, env=clean | environ, capture_output=True, text=True, timeout=60
        )

    return run


def test_make_alone_prints_help(make) -> None:
    done = make()
    for command in ("run", "test", "lab", "bench", "notebooks", "check", "clean", "badges"):
        assert re.search(rf"^  {command} ", done.stdout, re.MULTILINE), done.stdout


def test_make_run_sets_up_once_and_passes_options(make) -> None:
    first = make("run", "SOURCE=my file.gz", "PROFILE=colab")
    assert "Setting up" in first.stdout
    assert "ran -m shared run --source my file.gz --profile colab" in first.stdout
    assert "Setting up" not in make("run").stdout


def test_interrupted_set_up_starts_from_nothing(make, tmp_path: Path) -> None:
    """Incident: Ctrl-C during the first installation left a .venv that never worked again."""
    assert make("check", NO_NETWORK="1").returncode
    assert not (tmp_path / ".venv/.ready").exists()
    (tmp_path / ".venv/half").touch()
    done = make("check")
    assert "ran -m shared check" in done.stdout, done.stderr
    assert not (tmp_path / ".venv/half").exists()


def test_changed_requirements_are_installed(make, tmp_path: Path) -> None:
    make("check")
    stamp = (tmp_path / ".venv/.ready").stat().st_mtime
    os.utime(tmp_path / "requirements.txt", (stamp + 5, stamp + 5))
    assert "Setting up" in make("check").stdout


def test_old_python_is_refused_in_one_line(make) -> None:
    done = make("check", TOO_OLD="1")
    assert "needs Python 3.11 or newer" in done.stderr
    assert done.returncode


def test_ci_runs_what_the_readme_says() -> None:
    """Incident: CI had its own command; it passed while the documented one failed."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
    assert "run: make test" in (ROOT / ".github/workflows/test.yml").read_text()
