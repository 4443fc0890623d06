"""What a user may write: strict YAML, checked models, errors that say what to type."""
