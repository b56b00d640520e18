"""Turn-taking, phrase detection, the shared history, and the next event of the machine."""
