"""The default model: 32 latent dimensions, 128 hidden units, the plain ELBO.

python launch.py --config=configs/default.py:data=musiccaps
"""

from configs import base


def get_config(presets: str = ""):
    c = base.get_config()
    c.model_name = "vae_default"
    c.model.latent_dim = 32
    c.model.hidden_dim = 128
    c.model.use_batch_norm = False
    c.loss.kld_weight = 1.0
    return base.with_presets(c, presets)
