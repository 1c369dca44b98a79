"""The local web application in which a curator answers the questions of a warehouse."""
