"""Torch to ONNX, and the proof that both answer alike. The only importer of ONNX and of ONNX Runtime in the library."""
