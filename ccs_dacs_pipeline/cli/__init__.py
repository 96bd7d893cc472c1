"""`ccs-dacs`: what an operator types (interface.md, Commands). `app` holds the commands, `work` what they do."""
