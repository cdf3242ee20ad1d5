"""Turn a trained policy into one ONNX file, and run that file. Only `deploy.export` imports torch."""
