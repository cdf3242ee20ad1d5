"""Turn a trained policy into one ONNX file, and run that file. What runs on a robot imports no torch."""

from gipo.common import moved

moved.install()
