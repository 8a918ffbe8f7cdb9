"""What the passes share: the rules by which quantised operators become the integer datapath.

Nothing here is registered; each file is used by at least one pass beside this folder.
"""
