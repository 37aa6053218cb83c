"""The contract at the edge: gRPC services over the domain."""
