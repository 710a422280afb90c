"""The commands that train many runs at once: seeds, frontier and search."""
