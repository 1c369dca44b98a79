"""The command line: options, help and exit codes.

What a command does lies in flows.commands.
"""
