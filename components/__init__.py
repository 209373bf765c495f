"""Where TFX meets the model: one module for each component of the chain."""
