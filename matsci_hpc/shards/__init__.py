"""The data set on disk: layout, writer, reader, verification."""
