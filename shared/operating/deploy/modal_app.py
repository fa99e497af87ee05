"""The service on Modal, for those with an account: on CPUs, or a language model on a GPU.

    pip install modal && modal setup
    modal secret create course-serve COURSE_SERVE_KEYS=…    # 16 characters or more
    modal deploy modal_app.py

No code is copied: the image installs ``shared`` from the repository, at one commit. Weights are
fetched once, into a volume. Without requests nothing runs, and nothing is paid for. Not run in the
course's tests, which have no account.
"""

from __future__ import annotations

import modal

REPOSITORY = "https://github.com/YOUR_GITHUB_NAME/price-course"
COMMIT = "main"  # better: the commit you tested
MINUTES = 60

app = modal.App("price-course")
secret = modal.Secret.from_name("course-serve")
weights = modal.Volume.from_name("price-course-weights", create_if_missing=True)

# The versions that the course's tests ran with; nothing is typed twice.
PINNED = f"pip install -c {REPOSITORY}/raw/{COMMIT}/constraints.txt git+{REPOSITORY}@{COMMIT}"
SERVING = (
    "fastapi uvicorn prometheus-client pydantic onnxruntime numpy pyarrow polars orjson scipy "
    "scikit-learn tqdm isal datasketch xxhash filelock openai anthropic lightgbm skops safetensors "
    "threadpoolctl psutil"
)
small = (
    modal.Image.debian_slim(python_version="3.11")
    .apt_install("git", "libgomp1")
    .run_commands(f"{PINNED} {SERVING}")
)


@app.function(image=small, secrets=[secret], cpu=2, memory=2048, scaledown_window=5 * MINUTES)
@modal.concurrent(max_inputs=200)
@modal.asgi_app()
def prices():
    """Serve the shipped release, as ``python -m shared serve`` does."""
    from shared.operating.opening import open_served
    from shared.serving.app import create_app
    from shared.serving.limits import read_keys

    keys = read_keys()
    if not keys:
        raise ValueError("the secret course-serve needs COURSE_SERVE_KEYS: this is the internet")
    served = open_served()
    return create_app(served.pricer, served.version, keys=keys, wait_until_warm=True)


large = (
    modal.Image.debian_slim(python_version="3.12")
    .apt_install("git")
    .pip_install("vllm==0.11.0", f"price-course @ git+{REPOSITORY}@{COMMIT}")
    .env({"HF_HOME": "/weights/huggingface", "VLLM_CACHE_ROOT": "/weights/vllm"})
)


@app.function(
    image=large, gpu="L4", secrets=[secret, modal.Secret.from_name("huggingface")],
    volumes={"/weights": weights}, timeout=20 * MINUTES, scaledown_window=10 * MINUTES,
)  # fmt: skip
@modal.concurrent(max_inputs=64)
@modal.web_server(port=8000, startup_timeout=15 * MINUTES)
def language_model():
    """Serve the base and its adapter with vLLM; put the adapter into the volume beforehand:

    modal volume put price-course-weights FOLDER /prices-adapter
    """
    import os
    import subprocess
    from pathlib import Path

    import shared.operating.deploy as deploy

    folder = Path(deploy.__file__).parent
    key = os.environ["COURSE_SERVE_KEYS"].replace(",", " ").split()[0]
    command = [
        "vllm", "serve", "--config", str(folder / "vllm.yaml"),
        "--chat-template", str(folder / "prices.jinja"),
        "--lora-modules", "prices=/weights/prices-adapter",
    ]  # fmt: skip
    # In the environment, not on the command line, where every process could read it.
    subprocess.Popen(command, env={**os.environ, "VLLM_API_KEY": key})
