"""The gateway's only way to Triton: nothing else imports tritonclient or grpc."""
