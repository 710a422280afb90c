"""A trained model as files for others, and back: PyTorch, safetensors, ONNX, StableHLO, the Hub.

A new format is an entry in `formats.FORMATS`.
"""
