"""A beta-VAE, beta 10, of the large model's size (Higgins et al. 2017), with free bits.

128 dimensions have 0.0625 nats each for nothing, 8 together, and beta weighs what is above: the
textbook objective, --config.loss.objective=elbo, collapses on data like this (docs/quality.md).

python launch.py --config=configs/beta_high.py:data=musiccaps
"""

from configs import base


def get_config(presets: str = ""):
    c = base.get_config()
    c.model_name = "vae_beta_high"
    c.model.latent_dim = 128
    c.model.hidden_dim = 512
    c.model.use_batch_norm = True
    c.loss.kld_weight = 10.0
    c.loss.objective = "free_bits"
    c.loss.free_bits = 0.0625
    return base.with_presets(c, presets)
