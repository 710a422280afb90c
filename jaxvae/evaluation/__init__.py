"""How good a model or a collection of tag sets is: metrics, baselines, comparisons."""
