"""The command line for the model repository, and the supervisor of the Triton that serves it."""

import os

# grpc reads this when it is imported. Otherwise a child process can abort between fork and exec
# (github.com/grpc/grpc/issues/43055): on a busy machine, every seventh that is started after a call over gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# No library sends telemetry. ONNX Runtime does since 1.29, unless this is set before it is imported. Triton's steps and
# other child processes inherit it.
os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
