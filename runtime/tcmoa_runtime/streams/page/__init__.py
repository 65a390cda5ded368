"""The live page: shows a running stream and its statistics in a browser, and controls its prompt."""
