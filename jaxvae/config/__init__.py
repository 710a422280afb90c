"""From `--config=FILE` and its overrides to a checked `ConfigDict`; JAX is not imported here."""
