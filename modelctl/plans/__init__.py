"""TensorRT plans: built by `modelctl plan`, chosen when Triton starts.

job (one network) --command_lines--> trtexec --checks--> cache --> model.plan --choice--> plans or ONNX
"""
