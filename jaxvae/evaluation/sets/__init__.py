"""Compares tag sets with rows: figures of their quality, files of them, their diversity."""
