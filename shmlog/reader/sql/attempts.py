"""The records of resumed runs in SQL: which attempt they are of, and which a later one has superseded."""

from __future__ import annotations


def attempts_sql(records: str, columns: str) -> str:
    """Return a SELECT that adds ``attempt`` and ``superseded`` to the records that another selects.

    `shmlog.reader.attempts.mark_attempts` is the same for a table.

    Parameters
    ----------
    records : str
        Selects ``run_id``, ``experiment``, ``node`` and ``columns`` of runs in the table ``shmlog_attempts``.
    columns : str
        The columns of metrics.
    """
    return f"""
        SELECT run_id, experiment, {columns}, attempt, coalesce(step >= later_begins, false) AS superseded
        FROM ({_with_attempt(records)}) LEFT JOIN ({_begins_of_later(records)})
        USING (run_id, experiment, node, name, attempt)
    """


def _with_attempt(records: str) -> str:
    return f"""
        SELECT records.*, attempts.attempt FROM ({records}) AS records JOIN shmlog_attempts AS attempts
        ON records.run_id = attempts.run_id AND records.experiment = attempts.experiment
        AND records.node = attempts.node AND records.lane >= attempts.first_lane AND records.lane < attempts.end_lane
    """


def _begins_of_later(records: str) -> str:
    """Select by metric and attempt the smallest step that a later attempt has logged."""
    return f"""
        SELECT begins.run_id, begins.experiment, begins.node, begins.name, earlier.attempt,
            min(begins.step) AS later_begins
        FROM (
            SELECT run_id, experiment, node, name, attempt, min(step) AS step FROM ({_with_attempt(records)})
            GROUP BY ALL
        ) AS begins
        JOIN shmlog_attempts AS earlier
        ON begins.run_id = earlier.run_id AND begins.experiment = earlier.experiment AND begins.node = earlier.node
        AND earlier.attempt < begins.attempt
        GROUP BY ALL
    """
