"""What people say of suspects: questions, verdicts, and what comes of them."""
