"""Language models: loading, saving, and scoring tokens within the model's own forward."""
