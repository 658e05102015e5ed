"""Engines: PyTorch, onnxruntime and TensorRT behind one protocol, `i3dzoo.engines.base.Engine`."""
