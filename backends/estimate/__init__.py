"""Gates, area and delay of a design: measured with open tools, or predicted from its layers."""
