"""Accuracy: images and their labels, one row per image, the counts of top-1 and top-5."""
