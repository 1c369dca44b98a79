"""Whether two photos are one picture saved again: registered, then compared pixel by pixel."""
