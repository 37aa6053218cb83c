"""The client commands, as programs: real processes, real pipes and real pseudo-terminals."""
