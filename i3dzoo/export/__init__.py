"""Networks for other engines: ONNX graphs, TensorRT engines, TorchScript, TAO's weights.

`options.py` says what is exported, `graph.py` collects ONNX nodes, `onnx.py` writes the network as
such nodes, `proof.py` compares an exported file with PyTorch before it takes its name.
"""
