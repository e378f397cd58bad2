"""From records to figures and reports."""
