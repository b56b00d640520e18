"""Scripts that write the bundled calls, and that build and test a release."""
