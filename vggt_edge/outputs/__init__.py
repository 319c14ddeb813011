"""The way out: one file format a module, each with one ``write``."""
