"""A beta-VAE, beta 4, of the medium model's size (Higgins et al. 2017), at a capacity.

The posterior is held at eight nats (Burgess et al. 2018) and beta weighs every nat above or below:
the textbook objective, --config.loss.objective=elbo, collapses on data like this (docs/quality.md).

python launch.py --config=configs/beta_balanced.py:data=musiccaps
"""

from configs import base


def get_config(presets: str = ""):
    c = base.get_config()
    c.model_name = "vae_beta_balanced"
    c.model.latent_dim = 64
    c.model.hidden_dim = 256
    c.model.use_batch_norm = False
    c.loss.kld_weight = 4.0
    c.loss.objective = "capacity"
    c.loss.capacity = 8.0
    c.trainer.monitor = "val/nll_iw"  # val/loss weighs the KL by beta, so judges no epoch
    return base.with_presets(c, presets)
