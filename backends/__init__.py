"""Backends: from the integer IR to projects, and their emulation.

What more than one backend needs stands here or in `layers`; no model file and no torch is known.
"""
