"""Hostile bundles: one table for the tests of the Python runtime and of libtcmoa.

PYTHONPATH=tests python -m hostile FOLDER    # writes each bundle to FOLDER
"""
