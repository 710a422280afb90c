"""What to try around a preset: learning rate, regularisation, batch size, the weight of the KL.

python -m jaxvae search --config=configs/medium.py:data=musiccaps --space=configs/search/default.py

Two batch sizes and two priors make four programs; all other fields are numbers that trials of one
program may differ in.
"""


def get_space(s):
    s.log("trainer.optimizer.lr", 1e-3, 2e-2)
    s.choice("trainer.lr_scheduler.name", "constant", "cosine")
    s.uniform("model.dropout_p", 0.0, 0.4)
    s.choice("model.decoder_bias", "random", "log_odds")
    s.choice("data.batch_size", 64, 128)
    s.choice("trainer.gradient_clip_val", 1.0, 5.0)
    s.log("trainer.optimizer.weight_decay", 1e-7, 1e-3)
    s.uniform("loss.kld_weight", 0.6, 1.1)
    if s.choice("model.prior", "normal", "vamp") == "vamp":
        s.choice("loss.kld_schedule", "constant", "linear")
    if s["loss.kld_schedule"] == "linear":
        s.uniform("loss.kld_warmup", 0.05, 0.5)
