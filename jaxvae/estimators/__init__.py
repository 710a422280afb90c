"""Training on rows in memory: `jaxvae.fit`, and `jaxvae.TagVAE` for scikit-learn's pipelines."""
