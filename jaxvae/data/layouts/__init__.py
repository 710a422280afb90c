"""Where a table has its tags: in one column or several, in trailing ones, in a column for each tag,
or in a row for each; every layout becomes the same blocks of rows.
"""
