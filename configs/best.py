"""The recipe found to model tags best: a VampPrior, layer norm, averaged parameters, a cosine.

python launch.py --config=configs/best.py:data=musiccaps

Sizes, dropout, weight decay, objective, batch and epochs follow the training rows: docs/runs.md.
What each part bought, by how much it is ahead of other models and on which data: docs/quality.md.
"""

from configs import base


def get_config(presets: str = ""):
    c = base.get_config()
    c.model_name = "vae_best"
    c.model.latent_dim = 0
    c.model.hidden_dim = 0
    c.model.use_layer_norm = True
    c.model.dropout_p = -1.0
    c.model.decoder_bias = "log_odds"
    c.model.prior = "vamp"
    c.model.prior_components = 0
    c.data.batch_size = 0
    c.loss.objective = "auto"
    c.loss.num_importance_samples = 5
    c.loss.kld_schedule = "linear"
    c.loss.kld_warmup = 0.25
    c.trainer.max_epochs = 0
    c.trainer.check_val_every_n_epoch = 5
    c.trainer.gradient_clip_val = 5.0
    c.trainer.optimizer.lr = 1e-2
    c.trainer.optimizer.weight_decay = -1.0
    c.trainer.optimizer.decoupled_weight_decay = True
    c.trainer.lr_scheduler.name = "cosine"
    c.trainer.lr_scheduler.warmup_epochs = 4.0
    c.trainer.lr_scheduler.final_fraction = 0.02
    c.trainer.ema_decay = 0.999
    c.inference.quick_baseline = True
    return base.with_presets(c, presets)
