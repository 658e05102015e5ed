"""Export a network to ONNX, TensorRT, TorchScript, torch.export or NVIDIA TAO.

`export.export` is the entry point; `parity` compares an export with PyTorch before its file is
written. The other modules make one target each.
"""
