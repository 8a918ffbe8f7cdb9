"""Frontends: from model files and modules to the IR."""
