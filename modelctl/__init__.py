"""The command line for the model repository, and the supervisor of the Triton that serves it."""
