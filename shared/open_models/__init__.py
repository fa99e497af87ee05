"""Language models of one's own: opened in few bits, planned in memory, read as prices."""

import logging

# bitsandbytes warns where it finds no faster kernel, and with eight bits at each multiplication.
for _name in ("backends.cpu.ops", "autograd._functions"):
    logging.getLogger(f"bitsandbytes.{_name}").setLevel(logging.ERROR)
