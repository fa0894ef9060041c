"""Which requests may run, which wait and which are refused; and which share a call to Triton."""
