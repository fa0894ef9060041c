"""The gateway's only door to Triton: nothing else imports tritonclient or grpc."""
