"""What a visitor's browser does for other sites' pages, and for the server's own."""
