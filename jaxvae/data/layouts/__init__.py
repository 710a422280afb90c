"""Layouts of tables, with their tags in one column or several, in trailing ones, in a column for
each tag, or in a row for each; every one becomes the same blocks of rows.
"""
