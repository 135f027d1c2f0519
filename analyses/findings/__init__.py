"""What the numbers of each analysis say: a file an analysis, of its name, with its codes and ``judge``."""
