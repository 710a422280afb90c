"""From a source of tags to rows of tag ids and their splits, by a taxonomy; NumPy alone.

A new file format is a module in `readers`.
"""
