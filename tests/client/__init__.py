"""The Python client against a real gRPC server whose streams are scripted, so that faults can be timed."""
