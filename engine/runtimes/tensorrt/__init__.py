"""The ``tensorrt`` runtime: compiles plans, caches them on disk and runs them."""
