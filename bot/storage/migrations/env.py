"""Called by alembic; runs on the connection that `Database` hands over, inside its transaction."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import TypeDecorator

from bot.storage.schema import metadata


def plain_types(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Has new revisions name SQLAlchemy's types, not ours, which may change."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl_instance!r}"
    return False


context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_item=plain_types
)
context.run_migrations()
