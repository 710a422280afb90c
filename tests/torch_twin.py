"""The architecture once more, in PyTorch and independently: what parity is measured against."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Twin(nn.Module):
    """Linear, layer norm, ReLU, batch norm; the names are those of the exported files."""

    def __init__(
        self, *, num_tags, latent_dim, hidden_dim, use_batch_norm=False, use_layer_norm=False
    ):
        super().__init__()
        self.fc1 = nn.Linear(num_tags, hidden_dim)
        self.ln1 = nn.LayerNorm(hidden_dim) if use_layer_norm else None
        self.bn1 = nn.BatchNorm1d(hidden_dim) if use_batch_norm else None
        self.fc2_mu = nn.Linear(hidden_dim, latent_dim)
        self.fc2_logvar = nn.Linear(hidden_dim, latent_dim)
        self.fc3 = nn.Linear(latent_dim, hidden_dim)
        self.ln2 = nn.LayerNorm(hidden_dim) if use_layer_norm else None
        self.bn2 = nn.BatchNorm1d(hidden_dim) if use_batch_norm else None
        self.fc4 = nn.Linear(hidden_dim, num_tags)

    def encode(self, x):
        h = self.fc1(x)
        h = F.relu(h if self.ln1 is None else self.ln1(h))
        if self.bn1 is not None:
            h = self.bn1(h)
        return self.fc2_mu(h), self.fc2_logvar(h)

    def decode(self, z):
        h = self.fc3(z)
        h = F.relu(h if self.ln2 is None else self.ln2(h))
        if self.bn2 is not None:
            h = self.bn2(h)
        return self.fc4(h)

    def take(self, params, batch_stats):
        """Copies our parameters in, layer by layer."""
        with torch.no_grad():
            for layer, arrays in params.items():
                module = getattr(self, layer)
                if "kernel" in arrays:
                    module.weight.copy_(torch.from_numpy(np.array(arrays["kernel"]).T))
                else:
                    module.weight.copy_(torch.from_numpy(np.array(arrays["scale"])))
                    module.running_mean.copy_(
                        torch.from_numpy(np.array(batch_stats[layer]["mean"]))
                    )
                    module.running_var.copy_(torch.from_numpy(np.array(batch_stats[layer]["var"])))
                    module.num_batches_tracked.fill_(int(batch_stats[layer]["count"]))
                module.bias.copy_(torch.from_numpy(np.array(arrays["bias"])))
        return self


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
