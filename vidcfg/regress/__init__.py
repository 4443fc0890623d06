"""Did a change make videos worse? Paired comparison with a baseline, with error rates."""
