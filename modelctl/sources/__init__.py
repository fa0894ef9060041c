"""Where models come from: each source makes a `Draft`, a network in ONNX and what must be known of it.

recipe name -----> one file of modelctl/recipes, which names one of the others
hf:<repository>, a checkpoint's folder -> huggingface
file.onnx -------> onnxfile
file.pt ---------> torchscript, or ultralytics

Draft --addition--> compared, written (`folders`), linted, moved into the repository, loaded and asked
"""
