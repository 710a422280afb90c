"""The architecture once more, in PyTorch and independently: what parity is measured against."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Twin(nn.Module):
    """Linear, layer norm, ReLU, batch norm; the names are those of the exported files."""

    def __init__(
        self,
        *,
        num_tags,
        latent_dim,
        hidden_dim=None,
        hidden_dims=None,
        use_batch_norm=False,
        use_layer_norm=False,
    ):
        super().__init__()
        widths = list(hidden_dims or [hidden_dim])
        self.behind = ["", *(f"_{k}" for k in range(2, len(widths) + 1))]

        def stack(number, sizes):
            for behind, fan_in, width in zip(self.behind, sizes, sizes[1:], strict=False):
                self.add_module(f"fc{2 * number - 1}{behind}", nn.Linear(fan_in, width))
                if use_layer_norm:
                    self.add_module(f"ln{number}{behind}", nn.LayerNorm(width))
                if use_batch_norm:
                    self.add_module(f"bn{number}{behind}", nn.BatchNorm1d(width))

        stack(1, [num_tags, *widths])
        self.fc2_mu = nn.Linear(widths[-1], latent_dim)
        self.fc2_logvar = nn.Linear(widths[-1], latent_dim)
        stack(2, [latent_dim, *reversed(widths)])
        self.fc4 = nn.Linear(widths[0], num_tags)

    def through(self, number, h):
        own = dict(self.named_children())
        for behind in self.behind:
            h = own[f"fc{2 * number - 1}{behind}"](h)
            if layer_norm := own.get(f"ln{number}{behind}"):
                h = layer_norm(h)
            h = F.relu(h)
            if batch_norm := own.get(f"bn{number}{behind}"):
                h = batch_norm(h)
        return h

    def encode(self, x):
        h = self.through(1, x)
        return self.fc2_mu(h), self.fc2_logvar(h)

    def decode(self, z):
        return self.fc4(self.through(2, z))

    def take(self, params, batch_stats):
        """Copies our parameters in, layer by layer."""
        with torch.no_grad():
            for layer, arrays in params.items():
                module = getattr(self, layer)
                if "kernel" in arrays:
                    module.weight.copy_(torch.from_numpy(np.array(arrays["kernel"]).T))
                else:
                    module.weight.copy_(torch.from_numpy(np.array(arrays["scale"])))
                if layer in batch_stats:
                    module.running_mean.copy_(
                        torch.from_numpy(np.array(batch_stats[layer]["mean"]))
                    )
                    module.running_var.copy_(torch.from_numpy(np.array(batch_stats[layer]["var"])))
                    module.num_batches_tracked.fill_(int(batch_stats[layer]["count"]))
                module.bias.copy_(torch.from_numpy(np.array(arrays["bias"])))
        return self


def check_reconstructions(run, tensors):
    """A run's reconstructions of its test rows are those of the twin with an export's tensors."""
    network = run.network
    twin = Twin(
        num_tags=network.num_tags,
        latent_dim=network.latent_dim,
        hidden_dims=network.hidden_dims,
        use_batch_norm=network.use_batch_norm,
        use_layer_norm=network.use_layer_norm,
    )
    twin.load_state_dict(tensors)
    sets = run.sets("test")
    with torch.no_grad():
        logits = twin.eval().decode(twin.encode(torch.tensor(sets, dtype=torch.float32))[0])
    ours = run.probabilities(run.encode(sets))
    np.testing.assert_allclose(torch.sigmoid(logits).numpy(), ours, rtol=1e-4, atol=1e-6)


def gradients(twin):
    """Gradients in our layout: `{layer: {name: array}}`."""
    found = {}
    for name, parameter in twin.named_parameters():
        layer, kind = name.split(".")
        value = parameter.grad.numpy()
        if kind == "weight":
            kind, value = ("kernel", value.T) if layer.startswith("fc") else ("scale", value)
        found.setdefault(layer, {})[kind] = value
    return found
