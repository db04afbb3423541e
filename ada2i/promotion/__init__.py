"""Promotion of registered versions: judge a challenger, store the verdict, and move the alias if it is allowed."""

__all__ = ["gate", "page"]
