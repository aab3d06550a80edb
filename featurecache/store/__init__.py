"""The HDF5 cache: its format, its one writer, its reader and its checks."""
