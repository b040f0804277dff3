"""The page a person sees. Imports no torch: it asks the engine, and shows its events."""
