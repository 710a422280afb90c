"""The former `best.py`, whose sizes do not follow the data: it resumes runs that began with it.

python launch.py --config=configs/best_0.py --workdir=outputs/that_run

Found on MusicCaps' 4,315 training rows of ConceptCaps' 200 tags; what it reached: docs/quality.md.
A copy, so that it stays as it was when `best.py` changes.
"""

from configs import base


def get_config(presets: str = ""):
    c = base.get_config()
    c.model_name = "vae_best"
    c.model.latent_dim = 32
    c.model.hidden_dim = 256
    c.model.use_layer_norm = True
    c.model.dropout_p = 0.1
    c.model.decoder_bias = "log_odds"
    c.model.prior = "vamp"
    c.model.prior_components = 500
    c.data.batch_size = 128
    c.loss.kld_schedule = "linear"
    c.loss.kld_warmup = 0.25
    c.trainer.max_epochs = 80
    c.trainer.check_val_every_n_epoch = 5
    c.trainer.gradient_clip_val = 5.0
    c.trainer.optimizer.lr = 1e-2
    c.trainer.lr_scheduler.name = "cosine"
    c.trainer.lr_scheduler.warmup_epochs = 4.0
    c.trainer.lr_scheduler.final_fraction = 0.02
    c.trainer.ema_decay = 0.999
    return base.with_presets(c, presets)
