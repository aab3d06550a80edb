"""One image: read, decode, and isolate the decoder in a subprocess."""
