"""Turn a trained policy into one ONNX file, and run that file. What runs on a robot imports no torch."""

import os

from gipo.common import moved

moved.install()

# From 1.29 on ONNX Runtime reports what it loads to its makers, unless this says no before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
