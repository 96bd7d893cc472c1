"""What Alembic runs: migrates over the connection that `Ledger.migrate` hands in, inside its transaction."""

from alembic import context

from ccs_dacs_pipeline.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by copying it
    transactional_ddl=True,
    compare_server_default=False,
)
context.run_migrations()
