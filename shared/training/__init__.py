"""Open models: a tiny base made here, and the training that turns any base into a pricer."""

import logging

# When it is imported, bitsandbytes looks for a faster kernel, and warns where there is none.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
