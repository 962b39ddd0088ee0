"""Rows: read, understood, rendered, checked, packed and collated, each a pure function from rows to rows."""
