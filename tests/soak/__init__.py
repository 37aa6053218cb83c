"""What takes minutes: the promises of durability under many deaths. Run by `make soak`."""
