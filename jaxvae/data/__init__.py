"""Reads a source of tags into rows of tag ids by a taxonomy and splits them; NumPy only.

A new file format is a module in `readers`.
"""
