"""The command line: options, help, exit codes and messages.

What a command does lies in flows.commands.
"""
