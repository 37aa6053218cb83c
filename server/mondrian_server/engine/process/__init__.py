"""The engine process: one thread runs the model, others prepare rows, read commands and beat."""
