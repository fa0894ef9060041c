"""The command line for the model repository, and the supervisor of the Triton that serves it."""

import os

# Read when grpc is imported. Else a process forked to become another program may be aborted before it is
# (github.com/grpc/grpc/issues/43055): on a busy machine every seventh that is started after a call over gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Libraries tell their makers nothing. ONNX Runtime does since 1.29, unless this is set before it is imported. Triton's
# steps and other programs inherit it.
os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
