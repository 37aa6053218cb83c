"""The engine: its protocol, its supervisor, and the process that runs the model."""
