"""Trying likely conventions of a network on pairs, best first."""
