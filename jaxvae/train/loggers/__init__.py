"""Destinations of a run's metrics: the log, the terminal, TensorBoard and trackers.

Each tracker has a module of its own.
"""
