"""From hardware layers to circuits: products by constants as adders, requantisers, windows.

It decides what logic computes and how cheaply; stages and text belong to `emission`.
"""
