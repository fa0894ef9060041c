"""What the gateway is compared with by `python -m benchmarks tasks`: other ways to serve the same three tasks.

    PEER_FACTS (JSON of the models' configs) --pipeline--> one pipeline a task, used by every peer that runs networks

Each peer is one file, a server on 127.0.0.1:PEER_PORT with the gateway's routes (bare.py: no server at all), and says
what its numbers of workers and threads were chosen from.
"""
