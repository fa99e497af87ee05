"""A product catalogue made up here, as dirty as a real one, so that everything runs offline."""

from shared.embedded.catalogue import generate, irreducible_error, true_products

__all__ = ["generate", "irreducible_error", "true_products"]
