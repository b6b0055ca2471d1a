/* Slots of the write-ahead log to columns: what the sealer and the readers make
 * tables of. Bytes are as in docs/format.md, section 2; none of them is trusted:
 * whatever they are, no more than the columns' room is written and each slot is
 * looked at once. */
#ifndef SHMLOG_DECODE_H
#define SHMLOG_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/format.h"

/* A lane entry of a frame: what the lane's counters are before its slots. */
typedef struct {
    uint32_t lane;
    uint32_t slots;
    uint64_t position;
    uint64_t seq;
    uint32_t tenancy;
    uint32_t reserved;
    uint64_t gapped[SHMLOG_REASONS];
} shmlog_log_entry;

/* How a frame's ticks become UTC. */
typedef struct {
    int64_t ticks; /* when the frame was written */
    int64_t utc_ns;
    double rate; /* ns per tick */
    /* Added to times later than the frame, of records that were logged before the counter began anew; at most 2^61. */
    int64_t shift_us;
} shmlog_log_clock;

/* A unit or a record that is more than its first slot: LONGTEXT, EVENT, OWNER, GAP. */
typedef struct {
    uint64_t row;  /* of a LONGTEXT: its row */
    uint64_t slot; /* its first slot, counted in its entry */
    int64_t seq;
    int64_t ts_us;
    uint64_t dropped[SHMLOG_REASONS]; /* of a GAP: what it adds */
    uint32_t entry;
    uint32_t tenancy;
    uint32_t bytes; /* behind the first slot */
    uint32_t name;
    uint32_t kind;
    uint32_t is_file; /* the bytes are the path of a file */
} shmlog_log_item;

/* From this row on, rows are of this entry and tenancy. */
typedef struct {
    uint64_t row;
    uint32_t entry;
    uint32_t tenancy;
} shmlog_log_stretch;

_Static_assert(sizeof(shmlog_log_entry) == 80, "docs/format.md");
_Static_assert(sizeof(shmlog_log_item) == 104, "records/columns.py");
_Static_assert(sizeof(shmlog_log_stretch) == 16, "records/columns.py");

/* Columns under construction. Rows are the records whose name is known; there
 * must be room for a row and an item per slot, and for a stretch per slot and entry. */
typedef struct {
    int64_t *step;
    uint64_t *value; /* bits */
    int64_t *ts_us;
    int64_t *seq;
    int32_t *name;
    uint8_t *kind; /* SHMLOG_FLOAT - 1 ... SHMLOG_TEXT - 1; that also for LONGTEXT */
    int32_t *unit; /* rows of one call share a number */
    shmlog_log_item *items;
    shmlog_log_stretch *stretches;
    const int32_t *names; /* of each name id, or -1 */
    size_t names_count;

    size_t row_count;
    size_t item_count;
    size_t stretch_count;
    int32_t unit_count;
    uint32_t entry_count;
    uint32_t kinds; /* bit per kind that is among the rows */
    uint64_t nameless;
    uint32_t nameless_entry; /* where the first of these stands */
} shmlog_columns;

/* Take the slots of an entry, as far as they make sense, and move the entry
 * behind them. Returns how many do: behind the first unit that does not, neither
 * extents nor sequence numbers can be relied on. */
uint32_t shmlog_decode_entry(shmlog_columns *columns, const void *slots, shmlog_log_entry *entry,
                             const shmlog_log_clock *clock);

#endif
