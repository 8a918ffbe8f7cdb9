"""Gates, area and delay of a design: measured with open tools, or predicted from its layers.

It reads designs and layers; it never changes a project, and asks no vendor tool.
"""
