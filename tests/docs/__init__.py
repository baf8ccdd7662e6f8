"""The documentation is executed, followed and compared with the code."""
