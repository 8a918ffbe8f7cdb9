"""Jets to train on: a small Monte Carlo, its 16 observables, and the readers of other jet sets.

Data only: no network, no training.
"""
