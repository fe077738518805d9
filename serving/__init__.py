"""The endpoint: ONNX Runtime and numpy."""

import recsys  # noqa: F401  its settings for ONNX Runtime come before ONNX Runtime
