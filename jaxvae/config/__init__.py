"""Parses `--config=FILE` and its overrides into a checked `ConfigDict`; does not import JAX."""
