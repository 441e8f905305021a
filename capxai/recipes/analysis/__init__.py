"""Experiments about explanations: one stream of captioned pictures that all of them measure, and a module or two for each."""
