"""A beta-VAE, beta 10, of the large model's size (Higgins et al. 2017), at a capacity.

The posterior is held at eight nats (Burgess et al. 2018) and beta weighs every nat above or below:
the textbook objective, --config.loss.objective=elbo, collapses on data like this (docs/quality.md).

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
    c.loss.objective = "capacity"
    c.loss.capacity = 8.0
    c.trainer.monitor = "val/nll_iw"  # val/loss weighs the KL by beta, so judges no epoch
    return base.with_presets(c, presets)
