"""Write caches in the file formats of other libraries: one module per format."""
