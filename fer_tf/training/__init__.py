"""The training wing: recipe, fit, evaluate, explain, export."""
