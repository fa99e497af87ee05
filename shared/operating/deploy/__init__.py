"""Where a service runs that has outgrown one machine or its CPU: files to be copied and changed.

* ``vllm.yaml`` and ``prices.jinja``: an 8B base with a LoRA adapter on a GPU, asked by the same
  client as everything else.
* ``transformers_serve.md``: the same without vLLM, for trying things out.
* ``modal_app.py``: the service, or vLLM, on Modal, for those with an account.
* ``ray_serve.py``: the very app of ``create_app``, many times, on a Ray cluster.
"""
