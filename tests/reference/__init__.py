"""The reference pages of the documentation, made from the tables and docstrings of the code."""
