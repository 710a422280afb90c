"""The run directory: atomic files, manifest, lock, checkpoints, saved rows."""
