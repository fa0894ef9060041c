"""Triton on this machine: where it is installed, how it is started, supervised, asked and stopped.

installation, ports --Launch--> server (one process) <-- supervisor (starts it again, loads the models)
triton (calls over gRPC) <-- running (a server that answers, told to load and unload)
"""
