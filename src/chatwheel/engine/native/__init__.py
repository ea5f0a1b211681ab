"""The forward pass in C++ for CPUs, compiled for this processor when it is first needed."""
