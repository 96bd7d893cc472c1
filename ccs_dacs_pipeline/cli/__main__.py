"""`python -m ccs_dacs_pipeline.cli`, where the script is not on the path."""

from ccs_dacs_pipeline.cli.app import main

main()
