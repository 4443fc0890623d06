"""What holds a pipeline: families, guided calls, texts, changes to the model, loading."""
