"""Executors of graphs: the exact reference, and the fast one with a certificate per node.

They compute what a graph says; whether two results agree is decided in `hqc.equivalence`.
"""
