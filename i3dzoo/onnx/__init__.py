"""Write I3D as an ONNX graph, node by node, from canonical tensors."""
