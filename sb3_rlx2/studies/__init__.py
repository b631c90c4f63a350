"""Optuna studies that several workers share, on one machine or on many."""
