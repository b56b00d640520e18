"""The model of perceivers-live and its streaming inference."""

import os

# ONNX Runtime's official builds send telemetry unless this is set before the import. This program opens no connection that its
# user did not ask for.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
