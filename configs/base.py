"""Every field there is, with its default, its unit and its meaning; the other files change a few.

The comment behind a field is what `--help` prints for it. A new architecture or a new loss term
starts here as a new field with the default that leaves everything as it was: docs/extend.md shows
how. Fields are locked: a misspelt one is an error.

Presets are chosen in the config's own argument, comma-separated:

    --config=configs/medium.py:data=musiccaps,trainer=quick_test
"""

from ml_collections import ConfigDict

from jaxvae.errors import InputError, did_you_mean


def get_config(presets: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # seed of initialisation, batch order, dropout and noise
    c.init_from = ""  # run or .pth to start from: shared tags keep their weights; empty: afresh
    c.model_name = "vae"  # name of the copies under models/: letters, digits, '.', '_', '-'

    c.model = ConfigDict()
    c.model.architecture = "mlp"  # encoder and decoder: "mlp" or my_models.py:Name
    c.model.latent_dim = 32  # width of the latent vector z; 0: follows the data
    c.model.hidden_dim = 128  # width of the hidden layer, both ways; 0: follows the data
    c.model.hidden_dims = ()  # widths of several, input inwards: 256,128; in place of hidden_dim
    c.model.dropout_p = 0.3  # input dropout rate in [0, 1), rescaled; -1.0: follows the data
    c.model.use_batch_norm = False  # batch norm after the ReLUs
    c.model.use_layer_norm = False  # layer norm before the ReLUs
    c.model.tied_weights = False  # the last layer's kernel is the first one's, transposed
    c.model.hidden_dropout_p = 0.0  # dropout rate of the hidden layers in [0, 1)
    c.model.dropout_per_row = False  # draw each row's input dropout rate from 0 to 2 dropout_p
    c.model.decoder_bias = "random"  # how fc4.bias starts: "random", or the tags' "log_odds"
    c.model.prior = "normal"  # p(z): "normal", "mixture", "vamp", "flow" or my_priors.py:Name
    c.model.prior_components = 100  # Gaussians of a "mixture" or "vamp"; 0: follows the data

    c.data = ConfigDict()
    c.data.taxonomy_path = ""  # JSON {concept: [tags]}, or "from_data"; empty: the shipped one
    c.data.min_tag_rows = 10  # "from_data": training rows that a tag needs to be a column
    c.data.dataset_name = "embedded"  # "embedded[:ROWS]", a file, a hub id, or my_reader.py:name
    c.data.dataset_config = ""  # configuration (subset) of a hub data set
    c.data.dataset_split = "train"  # split of a hub data set to read
    c.data.hub_streaming = False  # read a hub data set as it comes, and keep no copy of it
    c.data.layout = "auto"  # "column", "trailing", "one_hot" or "long", where it can't be told
    c.data.aspect_column = "aspect_list"  # column that holds a row's tags; several: a,b,c
    c.data.separator = ""  # what stands between the tags of a text; empty: found
    c.data.group_by = ""  # of a table with a row for each tag: the column that names the item
    c.data.weight_column = ""  # of such a table: the column of weights; empty: found
    c.data.min_weight = 0.0  # of such a table: least weight of a tag; 0.0: all
    c.data.split_column = ""  # column with each row's split: train, val, test; empty: drawn
    c.data.val_from = ""  # file (or split of a hub data set) of the validation; empty: drawn
    c.data.test_from = ""  # file (or split of a hub data set) of the test; empty: drawn
    c.data.max_unreadable_fraction = 0.01  # greatest share of rows whose cells may be unreadable
    c.data.val_fraction = 0.05  # share of the kept rows for validation, rounded down
    c.data.test_fraction = 0.05  # share of the kept rows for the test, rounded down
    c.data.split_by = "row"  # "row", or "set": equal tag sets stay in one split
    c.data.split_seed = 42  # seed of the splits alone
    c.data.batch_size = 32  # rows of a batch; 0: follows the data
    c.data.rows_per_epoch = 0  # rows of an epoch, of the next epoch those that follow; 0: all
    c.data.shuffle = True  # draw a new order of the training rows every epoch

    c.loss = ConfigDict()
    c.loss.bce_weight = 1.0  # weight of the reconstruction term
    c.loss.kld_weight = 1.0  # weight of the KL term: the beta of a beta-VAE
    c.loss.use_binary_cross_entropy = True  # Bernoulli likelihood; False: squared error
    c.loss.objective = "elbo"  # or "free_bits", "capacity", "tcvae", "iw", my_file.py:name, "auto"
    c.loss.kld_schedule = "constant"  # "linear", "cosine" or "cyclical" warm-up of kld_weight
    c.loss.kld_warmup = 0.0  # epochs of that warm-up; below 1.0 a share of max_epochs
    c.loss.kld_cycles = 4  # cycles of a "cyclical" warm-up
    c.loss.free_bits = 0.25  # "free_bits": nats of KL that cost nothing, each latent dimension
    c.loss.capacity = 8.0  # "capacity": nats of KL that kld_weight holds the posterior at
    c.loss.num_importance_samples = 8  # "iw": draws of z for each row

    c.trainer = ConfigDict()
    c.trainer.max_epochs = 250  # epochs to train; 0: follows the data
    c.trainer.max_minutes = 0.0  # minutes of training to fit the epochs into; 0.0: no limit
    c.trainer.max_steps = 0  # optimizer steps that end training, within an epoch too; 0: no limit
    c.trainer.accelerator = "auto"  # "auto", "cpu", "gpu" or "tpu"
    c.trainer.devices = 1  # how many devices; -1: all there are
    c.trainer.mesh = ConfigDict()
    c.trainer.mesh.data = -1  # devices that share a batch; -1: as many as mesh.model leaves
    c.trainer.mesh.model = 1  # devices that share the first and last layer, for wide vocabularies
    c.trainer.scale_batch_with_devices = False  # batch_size times mesh.data, lr times its root
    c.trainer.precision = "32"  # "32", or "bf16": bfloat16 products, float32 parameters
    c.trainer.gradient_clip_val = 1.0  # global gradient norm to clip at; 0.0: off
    c.trainer.accumulate_grad_batches = 1  # batches whose gradients make one optimizer step
    c.trainer.check_val_every_n_epoch = 1  # epochs between validations
    c.trainer.enable_progress_bar = True  # a bar on a terminal; False: plain lines
    c.trainer.deterministic = False  # refuse GPU operations whose result varies from run to run
    c.trainer.optimizer = ConfigDict()
    c.trainer.optimizer.lr = 5e-4  # Adam's learning rate
    c.trainer.optimizer.betas = (0.9, 0.999)  # Adam's decay rates
    c.trainer.optimizer.weight_decay = 0.0  # coupled L2, as in torch's Adam; -1.0: follows the data
    c.trainer.optimizer.decoupled_weight_decay = False  # as in AdamW instead, on kernels alone
    c.trainer.ema_decay = 0.0  # decay a step of averaged parameters, which are judged; 0.0: off
    c.trainer.lr_scheduler = ConfigDict()
    c.trainer.lr_scheduler.name = "constant"  # "constant" or "cosine", after warm-up
    c.trainer.lr_scheduler.warmup_epochs = 0.0  # epochs of linear warm-up from zero
    c.trainer.lr_scheduler.final_fraction = 0.0  # share of lr that the cosine ends at
    c.trainer.monitor = "val/loss"  # chooses the epoch that is kept: also "val/elbo", "val/nll_iw"
    c.trainer.monitor_mode = "min"  # "min" or "max": which way trainer.monitor is better
    c.trainer.early_stopping_patience = 0  # validations without a better trainer.monitor; 0: off
    c.trainer.early_stopping_min_delta = 0.0  # by how much it must be better to count as such
    c.trainer.callbacks = ()  # functions called once an epoch, such as my_callbacks.py:gap
    c.trainer.checkpoint_every_seconds = 30.0  # seconds between checkpoints; 0.0: every epoch

    c.inference = ConfigDict()
    c.inference.enabled = True  # sample from the prior after training
    c.inference.num_samples = 1000  # tag sets to sample
    c.inference.temperature = 1.0  # divides the logits: above 1 more varied, below 1 safer
    c.inference.decode = "bernoulli"  # "bernoulli" (empty sets redrawn) or "threshold"
    c.inference.threshold = 0.5  # probability cut of reconstructions, and of decode="threshold"
    c.inference.seed = 0  # seed of the samples
    c.inference.quick_baseline = False  # at the end compare with a small mixture of Bernoullis

    c.logger = ConfigDict()
    c.logger.name = ("tensorboard",)  # also "wandb", "trackio", "mlflow"; (): metrics.jsonl alone
    c.logger.project = "jaxvae"  # what wandb, trackio and mlflow list the run under
    c.logger.offline = False  # nothing leaves this machine, whatever the environment says
    c.logger.artifacts = False  # attach model, metrics and report.html to the tracked run
    return with_presets(c, presets)


DATA = {
    "embedded": {"dataset_name": "embedded"},
    "musiccaps": {"dataset_name": "google/MusicCaps", "aspect_column": "aspect_list"},
    "msd": {"dataset_name": "seungheondoh/LP-MusicCaps-MSD", "aspect_column": "tag"},
    "mtt": {"dataset_name": "seungheondoh/LP-MusicCaps-MTT", "aspect_column": "tag_top188"},
}
TUNED = {  # the aids that leave the architecture, and so the exported file, as they are
    "model.dropout_p": 0.1,
    "model.decoder_bias": "log_odds",
    "data.batch_size": 128,
    "max_epochs": 150,
    "gradient_clip_val": 5.0,
    "optimizer.lr": 3e-3,
    "lr_scheduler.name": "cosine",
    "lr_scheduler.warmup_epochs": 4.0,
    "lr_scheduler.final_fraction": 0.02,
    "ema_decay": 0.999,
}
TUNED_IW = {  # the highest likelihood of these architectures, where kld_weight is 1
    **TUNED,
    "loss.objective": "iw",
    "max_epochs": 80,
    "optimizer.lr": 1e-2,
}
TRAINER = {
    "default": {},
    "quick_test": {"max_epochs": 10},
    "tuned": TUNED,
    "tuned_iw": TUNED_IW,
    "tuned_iw_wide": {  # for large.py, which overfits sooner
        **TUNED_IW,
        "loss.num_importance_samples": 20,
        "model.hidden_dropout_p": 0.2,
    },
    "distributed": {
        "devices": -1,
        "scale_batch_with_devices": True,
        "checkpoint_every_seconds": 60.0,
    },
}
PRESETS = {"data": DATA, "trainer": TRAINER}


def with_presets(config: ConfigDict, presets: str) -> ConfigDict:
    """Applies presets such as "data=musiccaps,trainer=quick_test" to a config and returns it."""
    for item in filter(None, presets.split(",")):
        group, _, name = item.partition("=")
        if group not in PRESETS:
            raise InputError(
                f"--config: preset {item!r}: no group {group!r}{did_you_mean(group, PRESETS)}; "
                f"write data=NAME or trainer=NAME behind the colon"
            )
        if name not in PRESETS[group]:
            raise InputError(
                f"--config: preset {item!r}: {group} is one of {', '.join(PRESETS[group])}"
                f"{did_you_mean(name, PRESETS[group])}"
            )
        for field, value in PRESETS[group][name].items():
            path = field.split(".")
            # A field of the preset's own group, unless its first part names another.
            node = config if path[0] in config else config[group]
            for part in path[:-1]:
                node = node[part]
            node[path[-1]] = value
    return config
