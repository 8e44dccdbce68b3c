"""Versions of the database's tables, oldest first in `versions/`, applied by `Database.open`.

After a change of `bot/storage/schema.py`, open a database of the newest version and write the next revision:

    from alembic import command
    from bot.storage.database import Database
    with Database.open("any.sqlite").engine.connect() as connection:
        command.revision(Database.migrations(connection), "what changed", autogenerate=True, rev_id="0002")

A revision never imports `schema.py`: it must still do the same when the tables have moved on.
"""
