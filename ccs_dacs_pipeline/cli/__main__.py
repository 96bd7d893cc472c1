"""Where `ccs-dacs` begins; also `python -m ccs_dacs_pipeline.cli`, where the script is not on the path."""

import gc


def main() -> None:
    """Runs the command line."""
    # What imports make stays: to look for garbage in it takes a quarter of the start, and then a twentieth of all CPU.
    gc.disable()
    from ccs_dacs_pipeline.cli.app import main as run  # noqa: PLC0415 -- see above

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
