"""Examples: the programs of clients/examples, run as their users run them."""
