"""Trains the embedded model (`weights/sketch`) from nothing: a complete, tiny Stable Diffusion 3.

Read in this order: `captions` (what a picture shows and what is said about it), `render` (drawing
it), `vae`, `text` (tokenizers and text encoders), `spelling` (T5's own training), `flow` (the MMDiT and
rectified flow), `publish`
(the pipeline folder), `__main__` (all of it in one command).
"""
