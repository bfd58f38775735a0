"""What the tests are run with: real servers, the service as a process, a load, a reference, and comparisons."""
