"""Training: the encoder from cell labels, the decoder from captions. Plain functions over tensors, without files or terminal."""
