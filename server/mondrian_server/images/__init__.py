"""Images: hostile bytes in, normalised pictures out, in a process of their own."""
