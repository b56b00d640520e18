"""The model of perceivers-live and its streaming inference."""

import os

# ONNX Runtime's official builds report to their maker unless they are told not to, before they are imported. This program calls
# nobody that its user has not named.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
