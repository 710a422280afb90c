"""Around best.py, by its numbers alone: all trials are one program.

python -m jaxvae search --config=configs/best.py:data=musiccaps --space=configs/search/best.py
"""


def get_space(s):
    s.log("trainer.optimizer.lr", 3e-3, 3e-2)
    s.uniform("model.dropout_p", 0.0, 0.3)
    s.uniform("loss.kld_warmup", 0.05, 0.5)
    s.uniform("loss.kld_weight", 0.85, 1.05)
    s.log("trainer.optimizer.weight_decay", 1e-2, 3.0)
    s.choice("trainer.gradient_clip_val", 1.0, 5.0, 20.0)
    s.uniform("trainer.lr_scheduler.final_fraction", 0.0, 0.2)
