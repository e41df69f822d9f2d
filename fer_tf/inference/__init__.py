"""From pictures and video to emotions, on ONNX Runtime or OpenVINO. Nothing here imports TensorFlow or Keras."""
