"""The gateway: HTTP and server-sent events for phones and browsers, as a gRPC client without state."""
