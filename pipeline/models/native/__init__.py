"""Our own kernels for the networks on the CPU: C++ headers, compiled once on the machine that runs them."""
