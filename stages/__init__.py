"""The pure array functions behind the Python steps, and the loop that serves requests with them.

Installed as a separate package, because the processes in which Triton runs Python see only installed packages.
"""
