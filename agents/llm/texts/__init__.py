"""Language models that answer questions about texts: one file a model, and what asks them within budgets."""
