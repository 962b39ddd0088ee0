"""What every part shares: settings base, types and errors."""
