"""Sources of models: each one makes a `Draft`, which is a network in ONNX and the facts needed to serve it.

recipe name -----> a file of modelctl/recipes, which names one of the sources below
hf:<repository>, a checkpoint's folder -> huggingface, with export, processors, texts
file.onnx -------> onnxfile -> vision, texts or tensors
file.pt ---------> torchscript or ultralytics -> onnxfile

Draft --addition--> converted and compared (`conversion`), written (`folders`), linted, moved into the repository,
                    loaded and asked
"""
