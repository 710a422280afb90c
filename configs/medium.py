"""The medium model: 64 latent dimensions, 256 hidden units, the plain ELBO.

python launch.py --config=configs/medium.py:data=musiccaps
"""

from configs import base


def get_config(presets: str = ""):
    c = base.get_config()
    c.model_name = "vae_medium"
    c.model.latent_dim = 64
    c.model.hidden_dim = 256
    c.model.use_batch_norm = False
    c.loss.kld_weight = 1.0
    return base.with_presets(c, presets)
