"""How good a recipe is on many data sets, beside a mixture of Bernoullis and other recipes."""
