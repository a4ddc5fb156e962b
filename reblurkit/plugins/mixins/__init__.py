"""Losses with a network of their own, for any LightningModule."""
