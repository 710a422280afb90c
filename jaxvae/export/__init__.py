"""Exports and imports trained models: PyTorch, safetensors, ONNX, StableHLO, the Hub.

A new format is an entry in `formats.FORMATS`.
"""
