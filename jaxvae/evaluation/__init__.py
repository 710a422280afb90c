"""Evaluates models and collections of tag sets: metrics, baselines, comparisons."""
