"""What tests share: graphs, models, runs and fixtures."""
