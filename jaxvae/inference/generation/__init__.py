"""Tag sets to order: drawn from a model under exact constraints, filtered, written as a table."""
