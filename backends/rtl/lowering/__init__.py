"""From hardware layers to circuits: products by constants as adders, requantisers, windows."""
