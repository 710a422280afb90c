"""A beta-VAE, beta 4, of the small model's size (Higgins et al. 2017), with free bits.

32 dimensions have 0.25 nats each for nothing, 8 together, and beta weighs what is above: the
textbook objective, --config.loss.objective=elbo, collapses on data like this (docs/quality.md).

python launch.py --config=configs/beta_default.py:data=musiccaps
"""

from configs import base


def get_config(presets: str = ""):
    c = base.get_config()
    c.model_name = "vae_beta_default"
    c.model.latent_dim = 32
    c.model.hidden_dim = 128
    c.model.use_batch_norm = False
    c.loss.kld_weight = 4.0
    c.loss.objective = "free_bits"
    c.loss.free_bits = 0.25
    c.trainer.monitor = "val/nll_iw"  # val/loss weighs the KL by beta, so judges no epoch
    return base.with_presets(c, presets)
