"""A run that computed in bfloat16 exports float32 in every format."""

import numpy as np
import pytest
from safetensors.numpy import load_file

import jaxvae
from tests.conftest import ROOT

pytestmark = pytest.mark.ecosystem


def test_a_run_in_bfloat16_exports_float32(tmp_path):
    import onnx
    from jax import export

    from jaxvae.config.parsing import load_config
    from jaxvae.train.trainer import train_and_evaluate

    config = load_config(str(ROOT / "configs" / "small.py"))
    config.trainer.max_epochs = 1
    config.trainer.precision = "bf16"
    config.logger.name = ()
    train_and_evaluate(config, tmp_path / "a", models_dir=tmp_path / "models")
    run = jaxvae.load(tmp_path / "a")
    outputs = ("m.safetensors", "m.stablehlo", "m.onnx")
    for output, name in (*((each, None) for each in outputs), ("t", "torch_module")):
        assert run.export(tmp_path / output, format=name).difference < 1e-4
    for path in (tmp_path / "m.safetensors", tmp_path / "t" / "model.safetensors"):
        assert {array.dtype for array in load_file(path).values()} == {np.dtype(np.float32)}
    encoder = export.deserialize(bytearray((tmp_path / "m.encoder.stablehlo").read_bytes()))
    assert "bf16" not in encoder.mlir_module()
    for part in ("encoder", "decoder", "prior"):
        graph = onnx.load(tmp_path / f"m.{part}.onnx").graph
        kinds = {weight.data_type for weight in graph.initializer}
        kinds |= {each.type.tensor_type.elem_type for each in (*graph.input, *graph.output)}
        assert kinds == {onnx.TensorProto.FLOAT}
