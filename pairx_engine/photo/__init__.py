"""One photo: from a file's bytes to the chip that the model sees, and its perceptual hash."""
