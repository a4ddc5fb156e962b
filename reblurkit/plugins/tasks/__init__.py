"""LightningModules that train."""
