"""Engine values to bytes and documents, and back."""
