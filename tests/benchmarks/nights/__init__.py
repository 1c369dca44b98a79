"""Five nights of the drawn catalogue: is what a night calls new what is new, and what does it cost."""
