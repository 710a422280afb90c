"""Where a run's metrics go: the log, the terminal, TensorBoard and trackers.

A new tracker is a module here.
"""
