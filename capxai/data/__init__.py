"""Corpora, vocabulary, pictures and stored features: everything that is read from disk before a model sees it."""
