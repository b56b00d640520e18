"""The ``tensorrt`` runtime: what compiles plans, keeps them and runs them."""
