"""The whole service over a scripted engine: faults and rates that must be timed."""
