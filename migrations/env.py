"""How Alembic reaches the store: over the connection it is given."""

from alembic import context

from cds_service.store import TABLES

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=TABLES, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
