"""The tags of one cell: lists in any notation, texts between separators, and how commands print
them.
"""
