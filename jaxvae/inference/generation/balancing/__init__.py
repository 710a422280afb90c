"""Balances tag sets: sets with one of some tags each, or reweighted sets with several."""
