"""How preparation and training scale: studies, what they measured, and what may be expected of more ranks."""
