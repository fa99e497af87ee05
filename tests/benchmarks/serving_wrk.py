"""Does another load generator find the same? wrk, in C, asks the service in a closed loop.

    apt install wrk && python tests/benchmarks/serving_wrk.py [--seconds 20] [--write]

The course's own load (``shared.operating.load``) compares every answer with the right one and can
come at times of its own, which wrk cannot; but it is written in Python, and takes time from the
service on the same cores. So the gain by batches is measured a second time with as many clients,
by somebody else's program. ``--write`` adds the figures to those of ``serving.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from serving import BATCHES, CLIENTS, QUIET, records_of

from shared.data.storage import write_json
from shared.operating import Server
from shared.operating.charts import FILE

SCRIPT = """
local bodies, at = {}, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
request = function()
  at = at % #bodies + 1
  return wrk.format("POST", "/v1/price", {["content-type"] = "application/json"}, bodies[at])
end
"""


def asked(url: str, records: list[dict], seconds: int) -> dict[str, Any]:
    """Ask for a product at a time, from as many clients as the benchmark has; return wrk's words.

    ``failed`` are answers other than 200, and connections that broke.
    """
    with tempfile.TemporaryDirectory() as folder:
        script, bodies = Path(folder) / "ask.lua", Path(folder) / "bodies"
        script.write_text(SCRIPT, encoding="utf-8")
        lines = [json.dumps({"products": [record]}) for record in records]
        bodies.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [
            "wrk",
            "--threads",
            "1",
            "--connections",
            str(CLIENTS),
            "--latency",
            "--duration",
            f"{seconds}s",
            "--timeout",
            "30s",
            "--script",
            str(script),
            url,
        ]
        environment = {**os.environ, "BODIES": str(bodies)}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return read(said.stdout)


def read(said: str) -> dict[str, Any]:
    """Return the figures in what wrk prints."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None:
        raise ValueError(f"wrk said something else than expected: {said[:300]!r}")
    broken = re.search(r"Socket errors: (.*)", said)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    counts = re.findall(r"\d+", broken[1]) if broken else []
    return {
        "products_a_second": float(rate[1]),
        "failed": sum(map(int, counts)) + (int(failed[1]) if failed else 0),
    }


def main() -> None:
    """Measure, print, and with ``--write`` store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20, help="for each size of batches")
    parser.add_argument("--write", action="store_true", help=f"add to {FILE.name}")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("there is no wrk here (on Debian and Ubuntu: apt install wrk)")
    records, rows = records_of(200), []
    for pricer in ("tuned", "small"):
        for size in BATCHES:
            options = {"max_batch": size} | ({"max_wait_ms": 0} if size == 1 else {})
            with Server(pricer=pricer, environment=QUIET, progress=True, **options) as server:
                rows.append({"pricer": pricer, "max_batch": size}
                            | asked(server.url, records, arguments.seconds))  # fmt: skip
            first = next(row for row in rows if row["pricer"] == pricer)
            faster = rows[-1]["products_a_second"] / first["products_a_second"]
            rows[-1]["faster"] = round(faster, 2)
            print(rows[-1], flush=True)
    if arguments.write:
        found = json.loads(FILE.read_text(encoding="utf-8"))
        write_json(found | {"wrk": rows}, FILE)


if __name__ == "__main__":
    main()
