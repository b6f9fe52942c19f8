"""Trained models -> label volumes."""
