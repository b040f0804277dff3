"""Who draws a job: this machine, an Inference Provider, or a GPU that ZeroGPU lends."""
