"""Hyper-parameter search with the zoo's ``train -optimize``."""
