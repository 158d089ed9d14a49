"""The definition: scalar loops straight from the formulas, which every fast kernel equals to the last bit."""
