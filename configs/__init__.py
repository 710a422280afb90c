"""Experiments: one file each, all starting from `configs.base`."""
