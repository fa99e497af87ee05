"""Language models that estimate prices, called over their APIs."""
