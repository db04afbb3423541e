"""From two registered versions to the one that is used: judge, keep the verdict, move the alias or leave it."""

__all__ = ["gate", "page"]
