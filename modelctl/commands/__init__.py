"""The commands, one a file: it declares arguments, calls a subject, and prints. Only the command line imports them."""
