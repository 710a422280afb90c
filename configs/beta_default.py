"""A beta-VAE, beta 4, of the small model's size (Higgins et al. 2017).

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
    return base.with_presets(c, presets)
