"""What any program needs: errors, locks, signals, a cache. No torch, Hydra or MLflow."""
