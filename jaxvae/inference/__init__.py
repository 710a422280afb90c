"""What one asks a trained model: latent vectors, samples, completions, likelihoods."""
