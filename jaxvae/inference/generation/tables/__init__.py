"""Tables of drawn tag sets: their columns, their texts by a template, their record."""
