"""The production stack in real containers: an engine and images of the tests' own, and what is asserted of them."""
