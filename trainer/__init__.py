"""Training for perceivers-live: data, examples, the loop on one process or many, evaluation, and bundles for the daemon.

fetch, unpack, tars                    data named by the user: a download, an archive or a folder -> a folder of MIDI files
reading, data                          MIDI files -> timed actions; packed data
segmentation, encoding                 training examples
settings, run, resume, initialise      a run's settings, its folder, its resumption, its initial weights
train, optimizer, parallel, samples    the training loop
likelihood, baselines, overlap, copying, evaluate    evaluation
export, onnx_graphs, int8, card        bundles
"""
