"""The few formulas that all losses share."""
