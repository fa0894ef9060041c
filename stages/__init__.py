"""The pure array functions behind the Python steps, and the loop that serves requests with them.

Installed as a package of its own, because the processes in which Triton runs Python see nothing but installed packages.
"""
