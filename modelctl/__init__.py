"""The command line for the model repository, and the supervisor of the Triton that serves it."""

import os

# Read when grpc is imported. Else a process forked to become another program may be aborted before it is
# (github.com/grpc/grpc/issues/43055): on a busy machine every seventh that is started after a call over gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
