"""The stage `benchmark`: public benchmarks of base and chat models (sections 2.3, 4.1 and 4.4)."""
