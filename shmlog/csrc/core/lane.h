/* One producer, one consumer: a ring of slots. See format.h for the shared
 * words and the pairs COMMIT and RECLAIM.
 *
 * The producer half must be called by the lane's owner alone, and nothing that
 * can run foreign code may stand between reading `head` and storing it. */
#ifndef SHMLOG_LANE_H
#define SHMLOG_LANE_H

#include "format.h"

#include <stdbool.h>

/* The owner's private view. */
typedef struct {
    shmlog_slot *slots;         /* NULL: no lane */
    shmlog_lane_header *shared; /* never NULL: of no lane it is shmlog_no_lane, whose limit is zero */
    uint64_t head;
    uint64_t tail_seen; /* keeps the flusher's line out of our cache until then */
    uint32_t mask;
    uint32_t shift;
} shmlog_lane;

/* Stands in for the shared half where there is no lane. Never written to. */
extern shmlog_lane_header shmlog_no_lane;

static inline uint32_t shmlog_lane_capacity(const shmlog_lane *lane) { return lane->mask + 1; }

static inline shmlog_slot *shmlog_slot_at(const shmlog_lane *lane, uint64_t position)
{
    return &lane->slots[position & lane->mask];
}

/* Fill the slot at `position` and make it exist. */
static inline void shmlog_lane_commit(const shmlog_lane *lane, uint64_t position, uint64_t ts, uint64_t value,
                                      int64_t step, uint32_t name_id, unsigned kind, unsigned flags)
{
    shmlog_slot *slot = shmlog_slot_at(lane, position);
    slot->ts = ts;
    slot->value = value;
    slot->step = step;
    /* COMMIT, release side. Before this store the slot does not exist: a
     * producer killed here loses the record and nothing else, because the slot
     * still carries the lap of the previous turn. A member slot exists for its
     * unit only, whose header is committed after it. */
    atomic_store_explicit(&slot->commit, shmlog_commit_word(position, lane->shift, name_id, kind, flags),
                          memory_order_release);
}

/* What lies below `head` is written. */
static inline void shmlog_lane_advance_to(shmlog_lane *lane, shmlog_lane_header *shared, uint64_t head)
{
    lane->head = head;
    /* relaxed: a hint for monitors. A producer killed before this store leaves
     * it behind; the flusher and a successor read commit words. */
    atomic_store_explicit(&shared->head, head, memory_order_relaxed);
}

/* Count `slots` slots as written. */
static inline void shmlog_lane_advance(shmlog_lane *lane, uint64_t slots)
{
    shmlog_lane_advance_to(lane, lane->shared, lane->head + slots);
}

#if defined(__SANITIZE_THREAD__)
#define SHMLOG_PLAIN_LIMIT 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHMLOG_PLAIN_LIMIT 0
#endif
#endif
#ifndef SHMLOG_PLAIN_LIMIT
#define SHMLOG_PLAIN_LIMIT 1
#endif

/* How far the owner may write. A plain load, which is a relaxed one on every 64-bit machine: compilers make
 * a single instruction of it and the comparison, but two of an atomic load, and each log call has it twice. */
static inline uint64_t shmlog_lane_limit(const shmlog_lane_header *shared)
{
#if SHMLOG_PLAIN_LIMIT
    return *(const uint64_t *)(const void *)&shared->limit;
#else
    return atomic_load_explicit(&shared->limit, memory_order_relaxed); /* relaxed: see CUT */
#endif
}

/* Let the owner write up to `limit`, unless its part has ended. Returns whether it may. */
static inline bool shmlog_lane_allow(const shmlog_lane *lane, uint64_t limit)
{
    atomic_store_explicit(&lane->shared->limit, limit, memory_order_relaxed); /* relaxed: CUT, the fence */
    atomic_thread_fence(memory_order_seq_cst);                               /* CUT, the producer's side */
    if (!atomic_load_explicit(&lane->shared->cut, memory_order_relaxed)) {   /* relaxed: CUT, the fence */
        return true;
    }
    atomic_store_explicit(&lane->shared->limit, 0, memory_order_relaxed); /* relaxed: so has whoever cut it */
    return false;
}

/* Have the next record take the slow way. */
static inline void shmlog_lane_forbid(const shmlog_lane *lane)
{
    atomic_store_explicit(&lane->shared->limit, 0, memory_order_relaxed); /* relaxed: our own, or cut anyway */
}

/* Whether the owner's part has ended while it wrote the unit that it has just committed. */
static inline bool shmlog_lane_was_cut(const shmlog_lane_header *shared)
{
    /* CUT: the compiler has to keep the commit before the look; for the processor the flusher's barrier does. */
    atomic_signal_fence(memory_order_seq_cst);
    return __builtin_expect(shmlog_lane_limit(shared) == 0, 0);
}

/* Ask for an fsync of what lies below `head`. Where threads have ended, somebody else may own the lane,
 * and ask for more. */
static inline void shmlog_lane_request_sync(shmlog_lane_header *shared, uint64_t head)
{
    /* relaxed: the exchange does it again. */
    uint64_t asked = atomic_load_explicit(&shared->sync_request, memory_order_relaxed);
    while (asked < head &&
           /* SYNC, release side; relaxed: as above, if it fails. */
           !atomic_compare_exchange_weak_explicit(&shared->sync_request, &asked, head, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

/* All together of what a lane counts by reason. */
static inline uint64_t shmlog_lane_sum(const _Atomic uint64_t *counts)
{
    uint64_t total = 0;
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        /* relaxed: our own counts; those of an earlier owner, after whom the lane's lock orders us; or
         * the flusher's, after which FINAL does. */
        total += atomic_load_explicit(&counts[reason], memory_order_relaxed);
    }
    return total;
}

/* Append a record of one slot. There must be room. */
static inline void shmlog_lane_put(shmlog_lane *lane, uint64_t ts, uint64_t value, int64_t step, uint32_t name_id,
                                   unsigned kind)
{
    shmlog_lane_commit(lane, lane->head, ts, value, step, name_id, kind, 0);
    shmlog_lane_advance(lane, 1);
}

/* What the header of a unit with bytes says. */
typedef struct {
    uint64_t ts;
    int64_t step;
    uint32_t name_id;
    unsigned kind;
    unsigned flags;
} shmlog_unit_head;

/* Write the slots of a text, event, owner or gap at `position`, last to first,
 * the header (its flags, MEMBER included, as given) at the end. Returns their
 * number. Head is not moved. */
uint32_t shmlog_lane_write_bytes(const shmlog_lane *lane, uint64_t position, const shmlog_unit_head *head,
                                 const void *bytes, uint32_t count);

/* A converted value, ready to be written. */
typedef struct {
    uint32_t name_id;
    unsigned kind;     /* a record kind: FLOAT ... LONGTEXT */
    unsigned flags;    /* FILE, GIVEN */
    uint32_t count;    /* bytes of a LONGTEXT */
    uint64_t bits;     /* value of the other kinds */
    const char *bytes; /* of a LONGTEXT */
    int64_t time_us;   /* if GIVEN: since 1970 */
} shmlog_value;

/* What `ts` of its slot is to be. */
static inline uint64_t shmlog_value_ts(const shmlog_value *value, uint64_t ticks)
{
    return value->flags & SHMLOG_GIVEN ? (uint64_t)value->time_us : ticks;
}

static inline uint32_t shmlog_value_slots(const shmlog_value *value)
{
    return value->kind == SHMLOG_LONGTEXT ? 1 + shmlog_data_slots(value->count) : 1;
}

/* Write a ROW of `count` records at `position`, which takes `slots` slots with
 * its header, last to first. Head is not moved. */
void shmlog_lane_write_row(const shmlog_lane *lane, uint64_t position, uint64_t ts, int64_t step,
                           const shmlog_value *values, uint32_t count, uint32_t slots);

/* Append one record of any kind as a unit. There must be room. */
void shmlog_lane_put_value(shmlog_lane *lane, uint64_t ts, int64_t step, const shmlog_value *value);

/* A unit as the consumer meets it. */
typedef struct {
    uint32_t slots;
    unsigned kind;
    unsigned flags;
    uint32_t name_id;
    uint64_t value;
} shmlog_unit;

typedef enum { SHMLOG_UNIT_NONE, SHMLOG_UNIT_WHOLE, SHMLOG_UNIT_DAMAGED } shmlog_unit_state;

/* Look at the unit that begins at `position`, of which at most `room` slots can
 * be in the ring. Every slot of a WHOLE unit has been checked. */
shmlog_unit_state shmlog_lane_peek(const shmlog_lane *lane, uint64_t position, uint32_t room, shmlog_unit *unit);

/* The first position at or after `from` where no committed unit begins, at most
 * one lap further on. */
uint64_t shmlog_lane_first_uncommitted(const shmlog_lane *lane, uint64_t from);

#endif
