"""The I3D network, independent of files and of the Hub."""
