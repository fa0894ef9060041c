"""Triton on this machine: it is found, started, supervised, called and stopped here.

installation, ports --Launch--> server (one process) <-- supervisor (starts it again, loads the models)
triton (calls over gRPC) <-- running (loads and unloads models in a running server)
"""
