"""What the verbs of the command line do, as plain functions ``run(config, reporter) -> report`` for use from Python."""
