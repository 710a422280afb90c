"""The large model: 128 latent dimensions, 512 hidden units, batch norm.

python launch.py --config=configs/large.py:data=musiccaps
"""

from configs import base


def get_config(presets: str = ""):
    c = base.get_config()
    c.model_name = "vae_large"
    c.model.latent_dim = 128
    c.model.hidden_dim = 512
    c.model.use_batch_norm = True
    c.loss.kld_weight = 1.0
    return base.with_presets(c, presets)
