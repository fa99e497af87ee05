"""Open models: a tiny base made here, and the training that turns any base into a pricer."""
