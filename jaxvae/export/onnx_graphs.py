"""Exports a model as three ONNX graphs: encoder, decoder, and prior (noise to latent vectors).

The graphs are built node by node from the parameters, so neither torch nor TensorFlow is needed.
They are three because ONNX runtimes require every graph input, even if one only decodes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.export import model_files, network_tensors
from jaxvae.models import trained
from jaxvae.models.layer_names import NORM_EPSILON, HiddenLayer, decoder_layers, encoder_layers
from jaxvae.models.priors import Flow, MixturePrior
from jaxvae.models.trained import TrainedModel

PARTS = ("encoder", "decoder", "prior")
_OPSET = 17
"""The first opset with layer normalisation; every recent runtime reads it."""
_IR_VERSION = 8
_MAX_BYTES = 2**31 - 2**20


def write_onnx(
    paths: dict[str, Path],
    network: TrainedModel,
    *,
    taxonomy: Taxonomy,
    facts: dict[str, str],
    probe: np.ndarray,
) -> float:
    """Writes the graphs, checks them, and compares their logits with the model's.

    Encoder: `x` float32 `[batch, V]`, multi-hot, to `mean` and `logvar`, `[batch, L]`. Decoder: `z`
    `[batch, L]` to `logits` `[batch, V]`. Prior: standard normal `noise` `[batch, L]`, with a
    mixture or VampPrior also `uniform` `[batch]` on [0, 1), to `z` drawn from p(z).

    Args:
      paths: a file for each of `PARTS`.
      network: the model.
      taxonomy: the meaning of the columns; stored in each graph's metadata with `facts`.
      facts: more texts for the metadata.
      probe: `[N, V]` multi-hot rows for the comparison.

    Returns:
      The largest difference between the files' logits, by ONNX's own reference, and the model's.

    Raises:
      InputError: onnx is not installed, a graph exceeds ONNX's 2 GiB, or does not hold the model.
    """
    onnx = _import_onnx()
    metadata = {
        "tags": json.dumps(taxonomy.spellings, ensure_ascii=False),
        "taxonomy": json.dumps(taxonomy.to_mapping(), ensure_ascii=False),
        "taxonomy_digest": taxonomy.digest,
        **facts,
    }
    tensors = network_tensors.to_state_dict(network)
    builders = {"encoder": _encoder, "decoder": _decoder, "prior": _prior}
    for name in PARTS:
        graph = _Graph(onnx)
        builders[name](graph, tensors, network)
        if sum(weight.ByteSize() for weight in graph.weights) > _MAX_BYTES:
            raise InputError(
                f"{paths[name]}: over 2 GiB, more than an ONNX file may hold; "
                f"--format safetensors holds it"
            )
        model = graph.model(f"jaxvae_{name}")
        onnx.helper.set_model_props(model, metadata)
        paths[name].write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(paths[name]), full_check=True)

    from onnx.reference import ReferenceEvaluator

    encode, decode = (ReferenceEvaluator(str(paths[name])) for name in ("encoder", "decoder"))
    (mean,) = encode.run(["mean"], {"x": probe.astype(np.float32)})
    (logits,) = decode.run(["logits"], {"z": mean})
    expected = trained.reconstruction_logits(network, probe)
    return model_files.check_logits(paths["decoder"], np.asarray(logits), expected)


def _import_onnx():
    try:
        import onnx
    except ImportError as error:
        raise InputError("--format onnx needs the package onnx (pip install onnx)") from error
    return onnx


class _Graph:
    """Builder of a graph from nodes and weights."""

    def __init__(self, onnx):
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self.weights: list[Any] = []

    def input(self, name: str, *widths: int) -> str:
        self._inputs.append(self._value(name, widths))
        return name

    def output(self, name: str, width: int) -> None:
        self._outputs.append(self._value(name, (width,)))

    def _value(self, name: str, widths: tuple[int, ...]):
        kind = self._onnx.TensorProto.FLOAT
        return self._onnx.helper.make_tensor_value_info(name, kind, ["batch", *widths])

    def weight(self, name: str, array: np.ndarray) -> str:
        array = np.ascontiguousarray(array)
        self.weights.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        node = self._onnx.helper.make_node(op, inputs, [output], name=f"{output}/{op}")
        for key, value in attributes.items():
            node.attribute.append(self._onnx.helper.make_attribute(key, value))
        self._nodes.append(node)
        return output

    def linear(self, x: str, output: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """Adds the node `x` times `weight` [in, out], plus `bias`."""
        inputs = [x, self.weight(f"{output}.weight", weight), self.weight(f"{output}.bias", bias)]
        return self.node("Gemm", inputs, output)

    def model(self, name: str):
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self.weights)
        return helper.make_model(
            graph,
            producer_name="jaxvae",
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET)],
        )


def _encoder(graph: _Graph, tensors: dict, network: TrainedModel) -> None:
    h = graph.input("x", network.num_tags)
    h = _through(graph, tensors, h, encoder_layers(len(network.hidden_dims)))
    for layer, name in (("fc2_mu", "mean"), ("fc2_logvar", "logvar")):
        graph.linear(h, name, tensors[f"{layer}.weight"].T, tensors[f"{layer}.bias"])
        graph.output(name, network.latent_dim)


def _decoder(graph: _Graph, tensors: dict, network: TrainedModel) -> None:
    h = graph.input("z", network.latent_dim)
    h = _through(graph, tensors, h, decoder_layers(len(network.hidden_dims)))
    graph.linear(h, "logits", tensors["fc4.weight"].T, tensors["fc4.bias"])
    graph.output("logits", network.num_tags)


def _through(graph: _Graph, tensors: dict, h: str, hidden: list[HiddenLayer]) -> str:
    for layer, layer_norm, batch_norm in hidden:
        h = graph.linear(h, layer, tensors[f"{layer}.weight"].T, tensors[f"{layer}.bias"])
        if f"{layer_norm}.weight" in tensors:
            names = [f"{layer_norm}.{kind}" for kind in ("weight", "bias")]
            weights = [graph.weight(name, tensors[name]) for name in names]
            h = graph.node(
                "LayerNormalization", [h, *weights], layer_norm, axis=-1, epsilon=NORM_EPSILON
            )
        h = graph.node("Relu", [h], layer_norm.replace("ln", "relu"))
        if f"{batch_norm}.weight" in tensors:
            kinds = ("weight", "bias", "running_mean", "running_var")
            names = [f"{batch_norm}.{kind}" for kind in kinds]
            weights = [graph.weight(name, tensors[name]) for name in names]
            h = graph.node("BatchNormalization", [h, *weights], batch_norm, epsilon=NORM_EPSILON)
    return h


def _prior(graph: _Graph, tensors: dict, network: TrainedModel) -> None:
    noise = graph.input("noise", network.latent_dim)
    prior = network.model.prior
    if prior is None:
        graph.node("Identity", [noise], "z")
    elif isinstance(prior, MixturePrior):
        _mixture(graph, network, noise)
    elif type(prior) is Flow:
        _flow(graph, tensors, noise)
    else:
        raise model_files.inexpressible_prior("onnx", network)
    graph.output("z", network.latent_dim)


def _mixture(graph: _Graph, network: TrainedModel, noise: str) -> None:
    mean, logvar, _ = trained.prior_components(network)
    edges = trained.component_cdf(network)
    uniform = graph.node(
        "Unsqueeze", [graph.input("uniform"), graph.weight("one", np.array([1]))], "uniform_column"
    )
    passed = graph.node(
        "GreaterOrEqual", [uniform, graph.weight("edges", edges[None, :])], "passed"
    )
    integer = graph.node("Cast", [passed], "counted", to=7)
    component = graph.node("ReduceSum", [integer, "one"], "component", keepdims=0)
    deviation = np.exp(0.5 * logvar)
    mean_row = graph.node("Gather", [graph.weight("means", mean), component], "mean")
    spread = graph.node("Gather", [graph.weight("deviations", deviation), component], "deviation")
    graph.node("Add", [mean_row, graph.node("Mul", [spread, noise], "spread")], "z")


def _flow(graph: _Graph, tensors: dict, noise: str) -> None:
    layers, latent_dim, _ = tensors["prior.hidden"].shape
    z = noise
    for layer in range(layers):
        moved = (np.arange(latent_dim) % 2 == layer % 2).astype(np.float32)
        # Zeros in the weights replace the masks: moved dimensions are not read, others not changed.
        hidden = tensors["prior.hidden"][layer] * (1.0 - moved)[:, None]
        h = graph.linear(z, f"hidden{layer}", hidden, tensors["prior.hidden_bias"][layer])
        h = graph.node("Relu", [h], f"active{layer}")
        weight = tensors["prior.shift_and_scale"][layer]
        bias = tensors["prior.shift_and_scale_bias"][layer]
        shift, scale = (
            graph.linear(h, f"{name}{layer}", weight[:, columns] * moved, bias[columns] * moved)
            for name, columns in (
                ("shift", slice(None, latent_dim)),
                ("scale", slice(latent_dim, None)),
            )
        )
        half = graph.weight(f"half{layer}", np.array([0.5], np.float32))
        two = graph.weight(f"two{layer}", np.array([2.0], np.float32))
        bounded = graph.node("Tanh", [graph.node("Mul", [scale, half], f"h{layer}")], f"t{layer}")
        factor = graph.node("Exp", [graph.node("Mul", [bounded, two], f"d{layer}")], f"f{layer}")
        moved_z = graph.node("Mul", [z, factor], f"scaled{layer}")
        z = graph.node("Add", [moved_z, shift], "z" if layer == layers - 1 else f"z{layer}")
