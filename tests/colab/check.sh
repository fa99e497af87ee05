#!/bin/sh
# `make colab-check`: the test-suite with the versions Colab preinstalls (tests/colab/versions.txt).
#   .colab-311  Python 3.11, everything; torch 2.13 (and the setuptools it asks for) instead of Colab's
#               2.11, because there is a CPU build of it that CI can get
#   .colab-313  Colab's Python 3.13, everything that needs no torch: tests that do are skipped
# PYTHON311 and PYTHON313 name the interpreters, should `python3.11` and `python3.13` not be found.
set -eu
cd "$(dirname "$0")/../.."
versions=tests/colab/versions.txt
needs_torch='^(torch|accelerate|peft|bitsandbytes|trl)[>=]'

build() {  # folder, interpreter, requirements, constraints
    if [ -e "$1/.ready" ] && [ ! requirements.txt -nt "$1/.ready" ] && [ ! $versions -nt "$1/.ready" ]
    then return; fi
    echo "Building $1 (a few minutes) …"
    rm -rf "$1" && "$2" -m venv "$1"
    echo "$3" > "$1/requirements.txt"
    echo "$4" > "$1/constraints.txt"
    "$1/bin/python" -m pip install -qq --disable-pip-version-check \
        -r "$1/requirements.txt" -c "$1/constraints.txt"
    "$1/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -e .
    touch "$1/.ready"
}

# Without lint (its rules change with its version) and packaging (it is about the newest set).
check() {  # environment, further arguments of pytest
    echo "== $1: $("$1/bin/python" --version), Colab's versions"
    environment=$1
    shift
    "$environment/bin/python" -m pytest -q --ignore tests/test_packaging.py "$@"
}

build .colab-311 "${PYTHON311:-python3.11}" "$(cat requirements.txt)" \
    "$(grep -vE '^(torch|setuptools)==' $versions; echo torch==2.13.0)"
build .colab-313 "${PYTHON313:-python3.13}" "$(grep -vE "$needs_torch" requirements.txt)" "$(cat $versions)"
failed=0
check .colab-311 || failed=1
COURSE_WITHOUT=torch check .colab-313 --ignore week6/4_strong_baselines.ipynb || failed=1
exit $failed
