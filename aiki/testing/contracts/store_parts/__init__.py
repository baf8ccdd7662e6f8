"""The parts of the contract of ``Store``, one for each thing that it keeps."""
