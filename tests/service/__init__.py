"""The service as callers meet it: real gRPC, the real engine, the embedded model."""
