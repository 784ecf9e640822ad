"""Write TensorFlow Lite files without TensorFlow: what a file holds, and its bytes."""
