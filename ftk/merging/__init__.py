"""Models into one: tensors in, tensors out, one method a file."""
