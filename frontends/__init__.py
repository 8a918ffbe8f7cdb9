"""Frontends: from model files and modules to the IR.

They read what people have, and end in the quantised state; lowering is for passes.
"""
