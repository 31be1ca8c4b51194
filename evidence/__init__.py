"""Experiments, studies of finished encoders, and the ledger of claims: what is run, its cards, and what they say."""
