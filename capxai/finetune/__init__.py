"""What fine-tuning minimizes: objectives over a captioner, its memory and a batch of captions. Plain tensors, no files, no terminal."""
