"""Models of the shapes that people bring, small and seeded, by where they come from."""
