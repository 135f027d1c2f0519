"""The native core: sums over tensors in the host's memory, in C. Where it is absent torch's operations do the same."""
