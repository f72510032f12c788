"""The command `dwlt`: thin. It reads arguments, calls the library and prints."""
