"""One right answer: decide a rounding from a bound, refine it where that does not decide."""
