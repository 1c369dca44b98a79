"""The SQL files: views, suspect rules, macros and the cookbook, and how their headers are read."""
