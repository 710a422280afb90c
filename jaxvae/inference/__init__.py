"""Queries of a trained model: latent vectors, samples, completions, likelihoods."""
