"""The library: what pipelines and serving share."""

import os

# ONNX Runtime's official builds report every session to Microsoft unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
