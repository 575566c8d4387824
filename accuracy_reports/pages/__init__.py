"""Records as HTML files that need nothing from elsewhere, and an index over them."""
