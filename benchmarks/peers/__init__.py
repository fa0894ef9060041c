"""The peers of the gateway in `python -m benchmarks tasks`: other servers of the same three tasks.

    PEER_FACTS (JSON of the models' configs) --pipeline--> a pipeline per task, used by every peer that runs networks

Each peer is one file: a server on 127.0.0.1:PEER_PORT with the gateway's routes (bare.py has no server). Its docstring
gives the reason for its numbers of workers and threads.
"""
