"""From a float model and a budget to bit widths, and to a network that is trained with them.

Sensitivities, costs, allocation and the steps of a run; layers and checkpoints of HAWQ are read by
`hqc.frontends.hawq`.
"""
