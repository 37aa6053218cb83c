"""The Mondrian server: vision-language models behind one gRPC contract."""
