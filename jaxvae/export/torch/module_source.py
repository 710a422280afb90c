"""Exports a trained model as PyTorch source: a short `model.py` that needs only torch.

Only the parts that the model has are written, to keep the file easy to read.
"""

from collections.abc import Sequence

from jaxvae.errors import InputError
from jaxvae.models import priors
from jaxvae.models.layer_names import HiddenLayer, decoder_layers, encoder_layers
from jaxvae.models.trained import TrainedModel

WEIGHTS, MEANING, SOURCE = "model.pth", "model.json", "model.py"

_HEAD = '''"""{title}

from model import load
model = load()
mean, logvar = model.encode(model.rows([["{tag}"]]))
model.names(model.sample(5))
"""

import json
import math
import unicodedata
from pathlib import Path

import torch
from torch import nn

NUM_TAGS = {num_tags}
{widths}
LATENT_DIM = {latent_dim}


def fold(tag):
    """The spelling that tags are compared by: "Jazz" and "jazz" are one tag."""
    while (text := " ".join(unicodedata.normalize("NFKC", tag).casefold().split())) != tag:
        tag = text
    return tag


def normal_log_prob(z):
    """Log density of N(0, I), nats."""
    return -0.5 * (z.square() + math.log(2.0 * math.pi)).sum(dim=-1)
'''

_COMPONENTS = '''
    def log_prob(self, z, encode):
        """Log density of rows of z, nats."""
        mean, logvar, log_weight = self.components(encode)
        noise = (z[:, None] - mean) * torch.exp(-0.5 * logvar)
        each = normal_log_prob(noise) - 0.5 * logvar.sum(dim=-1)
        return torch.logsumexp(each + log_weight, dim=1)

    def draw(self, noise, encode, generator=None):
        """Turns standard normal noise into draws."""
        mean, logvar, log_weight = self.components(encode)
        at = torch.multinomial(log_weight.exp(), len(noise), replacement=True, generator=generator)
        return mean[at] + torch.exp(0.5 * logvar[at]) * noise
'''

_PRIORS: dict[type, str] = {
    priors.Mixture: '''

class Mixture(nn.Module):
    """A mixture of diagonal Gaussians."""

    def __init__(self):
        super().__init__()
        self.means = nn.Parameter(torch.zeros({K}, LATENT_DIM))
        self.logvars = nn.Parameter(torch.zeros({K}, LATENT_DIM))
        self.logits = nn.Parameter(torch.zeros({K}))

    def components(self, encode):
        """Means and log-variances [K, L], log weights [K]."""
        return self.means, self.logvars, self.logits.log_softmax(dim=0)
'''
    + _COMPONENTS,
    priors.Vamp: '''

class Vamp(nn.Module):
    """A VampPrior: the posteriors of learned pseudo-rows, weighted."""

    def __init__(self):
        super().__init__()
        self.pseudo_inputs = nn.Parameter(torch.zeros({K}, NUM_TAGS))
        self.logits = nn.Parameter(torch.zeros({K}))

    def components(self, encode):
        """Means and log-variances [K, L], log weights [K]."""
        mean, logvar = encode(self.pseudo_inputs.clamp(0.0, 1.0))
        return mean, logvar, self.logits.log_softmax(dim=0)
'''
    + _COMPONENTS,
    priors.Flow: '''

class Flow(nn.Module):
    """Affine coupling layers on N(0, I) (RealNVP)."""

    def __init__(self):
        super().__init__()
        layers, width = {S}, {W}
        self.hidden = nn.Parameter(torch.zeros(layers, LATENT_DIM, width))
        self.hidden_bias = nn.Parameter(torch.zeros(layers, width))
        self.shift_and_scale = nn.Parameter(torch.zeros(layers, width, 2 * LATENT_DIM))
        self.shift_and_scale_bias = nn.Parameter(torch.zeros(layers, 2 * LATENT_DIM))

    def coupling(self, layer, z):
        """Shift and log scale of a layer, zero where it leaves z as it is."""
        moved = torch.arange(LATENT_DIM, device=z.device) % 2 == layer % 2
        h = torch.relu(z.masked_fill(moved, 0.0) @ self.hidden[layer] + self.hidden_bias[layer])
        both = h @ self.shift_and_scale[layer] + self.shift_and_scale_bias[layer]
        shift, scale = both.masked_fill(~moved.repeat(2), 0.0).chunk(2, dim=-1)
        return shift, 2.0 * torch.tanh(0.5 * scale)

    def log_prob(self, z, encode):
        """Log density of rows of z, nats, by the change of variables."""
        log_det = 0.0
        for layer in reversed(range(len(self.hidden))):
            shift, log_scale = self.coupling(layer, z)
            z = (z - shift) * torch.exp(-log_scale)
            log_det = log_det - log_scale.sum(dim=-1)
        return normal_log_prob(z) + log_det

    def draw(self, noise, encode, generator=None):
        """Turns standard normal noise into draws."""
        z = noise
        for layer in range(len(self.hidden)):
            shift, log_scale = self.coupling(layer, z)
            z = z * torch.exp(log_scale) + shift
        return z
''',
}

_MODEL = '''

class VAE(nn.Module):
    """Rows of tags as multi-hot float32 [N, NUM_TAGS]; `tags` names the columns."""

    def __init__(self):
        super().__init__()
        self.tags = []
{layers}
    def encode(self, x):
        """Mean and log-variance of q(z|x), each [N, LATENT_DIM]."""
        h = {encoded}
        return self.fc2_mu(h), self.fc2_logvar(h)

    def decode(self, z):
        """Logits of the tags, [N, NUM_TAGS]."""
{further}        return self.fc4({decoded})

    def log_prior(self, z):
        """Log p(z) of rows of z, nats."""
        return {log_prior}

    def draw_prior(self, num, generator=None):
        """Draws [num, LATENT_DIM] from p(z)."""
        device = self.fc4.weight.device
        noise = torch.randn(num, LATENT_DIM, generator=generator, device=device)
        return {draw}

    @torch.no_grad()
    def sample(self, num, temperature=1.0, generator=None):
        """New tag sets, boolean [num, NUM_TAGS]; an empty one is drawn again, up to 100 times."""
        sets = torch.zeros(num, NUM_TAGS, dtype=torch.bool, device=self.fc4.weight.device)
        for _ in range(100):
            empty = ~sets.any(dim=1)
            if not empty.any():
                break
            z = self.draw_prior(int(empty.sum()), generator)
            p = torch.sigmoid(self.decode(z) / temperature)
            sets[empty] = torch.rand(p.shape, generator=generator, device=p.device) < p
        return sets

    def rows(self, tag_sets):
        """Lists of tags, in any case, as multi-hot rows."""
        column_of = {{fold(tag): column for column, tag in enumerate(self.tags)}}
        x = torch.zeros(len(tag_sets), NUM_TAGS, device=self.fc4.weight.device)
        for row, tags in zip(x, tag_sets, strict=True):
            row[[column_of[fold(tag)] for tag in tags]] = 1.0
        return x

    def names(self, sets):
        """Boolean or multi-hot rows as lists of tags."""
        return [[self.tags[column] for column in row.nonzero().flatten()] for row in sets]


def load(folder=None):
    """The trained model, from `{weights}` and `{meaning}` in a folder (this file's own)."""
    folder = Path(__file__).parent if folder is None else Path(folder)
    model = VAE()
    weights = torch.load(folder / "{weights}", map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    taxonomy = json.loads((folder / "{meaning}").read_text(encoding="utf-8"))["taxonomy"]
    model.tags = [tag for tags in taxonomy.values() for tag in tags]
    return model.eval()
'''


def module_source(network: TrainedModel, *, name: str, tags: Sequence[str]) -> str:
    """Returns the text of `model.py`.

    Args:
      network: the model.
      name: its name, for the first line.
      tags: the tags of its columns; one is used in the example.

    Raises:
      InputError: the prior is a user's own.
    """
    prior, learned = network.model.prior, ""
    if prior is not None:
        if type(prior) not in _PRIORS:
            raise InputError(
                f"--format torch_module: can't express --config.model.prior={network.prior}; pth "
                f"and safetensors hold its arrays"
            )
        sizes = priors.axis_sizes(type(prior), network.params["prior"])
        learned = _PRIORS[type(prior)].format(**sizes)
    title = f"{_plain(name)}: a variational autoencoder over {network.num_tags} tags."
    head = _HEAD.format(
        title=title,
        tag=next((tag for tag in tags if _plain(tag) == tag), _plain(tags[0])),
        num_tags=network.num_tags,
        widths="\n".join(
            f"{name} = {width}"
            for name, width in zip(_widths(network), network.hidden_dims, strict=True)
        ),
        latent_dim=network.latent_dim,
    )
    depth = len(network.hidden_dims)
    *further, decoded = _through(network, decoder_layers(depth), "z")
    model = _MODEL.format(
        layers=_layers(network),
        encoded="\n        h = ".join(_through(network, encoder_layers(depth), "x")),
        further="".join(f"        h = {expression}\n" for expression in further),
        decoded=decoded,
        log_prior="self.prior.log_prob(z, self.encode)" if learned else "normal_log_prob(z)",
        draw="self.prior.draw(noise, self.encode, generator)" if learned else "noise",
        weights=WEIGHTS,
        meaning=MEANING,
    )
    return head + learned + model


def _widths(network: TrainedModel) -> list[str]:
    """Names of the constants for the hidden layers' widths, from the input inwards."""
    return ["HIDDEN_DIM", *(f"HIDDEN_DIM_{k}" for k in range(2, len(network.hidden_dims) + 1))]


def _layers(network: TrainedModel) -> str:
    """Source lines that define the layers, in the order of the state dict."""

    def hidden(layers: list[HiddenLayer], fan_in: str, widths: list[str]) -> dict[str, str]:
        modules = {}
        for (linear, layer_norm, batch_norm), width in zip(layers, widths, strict=True):
            modules[linear] = f"nn.Linear({fan_in}, {width})"
            modules[layer_norm] = f"nn.LayerNorm({width})"
            modules[batch_norm] = f"nn.BatchNorm1d({width})"
            fan_in = width
        return modules

    widths = _widths(network)
    definitions = {
        **hidden(encoder_layers(len(widths)), "NUM_TAGS", widths),
        "fc2_mu": f"nn.Linear({widths[-1]}, LATENT_DIM)",
        "fc2_logvar": f"nn.Linear({widths[-1]}, LATENT_DIM)",
        **hidden(decoder_layers(len(widths)), "LATENT_DIM", widths[::-1]),
        "fc4": "nn.Linear(HIDDEN_DIM, NUM_TAGS)",
        "prior": f"{type(network.model.prior).__name__}()",
    }
    return "".join(
        f"        self.{name} = {layer}\n"
        for name, layer in definitions.items()
        if name in network.params
    )


def _through(network: TrainedModel, hidden: list[HiddenLayer], given: str) -> list[str]:
    """Expressions of the hidden layers' outputs: the first layer's input is `given`, then h."""
    outputs = []
    for linear, layer_norm, batch_norm in hidden:
        output = f"self.{linear}({given})"
        output = f"self.{layer_norm}({output})" if network.use_layer_norm else output
        output = f"torch.relu({output})"
        outputs.append(f"self.{batch_norm}({output})" if network.use_batch_norm else output)
        given = "h"
    return outputs


def _plain(text: str) -> str:
    """Replaces characters of a name that could end a string or a line of the source."""
    return "".join(c if c.isalnum() or c in " -_.,:&'" else " " for c in text)[:80]
