"""Answers about every row of a file: latent vectors, completions, likelihoods."""
