"""Backends: from the integer IR to projects, and their emulation."""
