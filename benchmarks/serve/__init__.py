"""The live endpoint: latency and throughput beside a bare app that makes the same ONNX calls, a soak with reloads, capacity."""
