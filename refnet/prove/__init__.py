"""exp and sigmoid over all 2**32 float32 inputs, proved a second way."""
