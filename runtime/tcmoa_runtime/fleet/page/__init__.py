"""The page of a fleet: all pairs with their state and newest picture, metrics, and the same as JSON."""
