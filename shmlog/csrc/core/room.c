/* Room in a producer's lane: GAP and OWNER records that are owed, drops, the end of its part, and waiting. */
#include "producer.h"

#include "clock.h"
#include "lock.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

/* ---- room ---- */

static void put_gap(shmlog_producer *producer)
{
    shmlog_lane *lane = &producer->lane;
    uint64_t counts[SHMLOG_REASONS];
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        /* relaxed: we are the only writer and read back our own stores. */
        counts[reason] = atomic_load_explicit(&lane->shared->dropped[reason], memory_order_relaxed);
    }
    shmlog_unit_head head = {shmlog_ticks(producer->segment->tsc), 0, 0, SHMLOG_GAP, 0};
    uint32_t slots = shmlog_lane_write_bytes(lane, lane->head, &head, counts, sizeof counts);
    shmlog_lane_advance(lane, slots);
    producer->owes_gap = false;
}

static void put_owner(shmlog_producer *producer)
{
    shmlog_lane *lane = &producer->lane;
    shmlog_unit_head head = {shmlog_ticks(producer->segment->tsc), 0, 0, SHMLOG_OWNER, 0};
    uint32_t slots =
        shmlog_lane_write_bytes(lane, lane->head, &head, producer->owner, producer->owner_bytes);
    shmlog_lane_advance(lane, slots);
    producer->owes_owner = false;
}

static uint32_t owed_slots(const shmlog_producer *producer)
{
    uint32_t owner = producer->owes_owner ? 1 + shmlog_data_slots(producer->owner_bytes) : 0;
    return owner + (producer->owes_gap ? SHMLOG_GAP_SLOTS : 0);
}

shmlog_room shmlog_producer_make_room(shmlog_producer *producer, uint32_t slots)
{
    shmlog_lane *lane = &producer->lane;
    uint32_t capacity = shmlog_lane_capacity(lane);

    /* RECLAIM, acquire side. The flusher advances tail after what lies below it
     * is in the log, so passing this load is our licence to overwrite it. */
    lane->tail_seen = atomic_load_explicit(&lane->shared->tail, memory_order_acquire);
    if (shmlog_producer_is_cut(producer)) {
        return SHMLOG_CUT;
    }
    if (lane->head - lane->tail_seen + owed_slots(producer) + slots > capacity) {
        shmlog_lane_forbid(lane);
        return SHMLOG_FULL;
    }
    /* The drops belong to the lane's previous owner if there is a new one. */
    if (producer->owes_gap) {
        put_gap(producer);
    }
    if (producer->owes_owner) {
        put_owner(producer);
    }
    bool below_half = lane->head - lane->tail_seen + slots <= capacity / 2;
    if (!shmlog_lane_allow(lane, lane->tail_seen + (below_half ? capacity / 2 : capacity))) {
        return SHMLOG_CUT;
    }
    return below_half ? SHMLOG_ROOM : SHMLOG_ROOM_WAKE;
}

bool shmlog_producer_run_is_closed(const shmlog_producer *producer)
{
    /* CUT: what we have committed and counted comes before the look. If the run is not closed, the flusher's
     * last drain, which comes after that, takes it. */
    atomic_thread_fence(memory_order_seq_cst);
    return shmlog_segment_is_closed(producer->segment);
}

void shmlog_producer_uncut(shmlog_producer *producer)
{
    atomic_store_explicit(&producer->lane.shared->cut, 0, memory_order_relaxed); /* relaxed: CUT, the fence */
    /* CUT: whoever means us has ended our part before our look that follows, or cuts the lane again. */
    atomic_thread_fence(memory_order_seq_cst);
}

uint64_t shmlog_producer_retire(shmlog_producer *producer, uint64_t *untold)
{
    const shmlog_lane *lane = &producer->lane;
    uint64_t final = 0;
    *untold = 0;
    /* FINAL: release, what we have committed and counted is seen by the flusher that finds it; acquire,
     * what the flusher has decided is seen by us. */
    if (atomic_compare_exchange_strong_explicit(&lane->shared->final, &final, shmlog_final(lane->head, 0),
                                                memory_order_acq_rel, memory_order_acquire)) {
        return 0;
    }
    uint64_t told = shmlog_lane_sum(lane->shared->told), dropped = shmlog_lane_sum(lane->shared->dropped);
    uint64_t end = shmlog_final_position(final);
    *untold = dropped > told ? dropped - told : 0;
    return lane->head > end ? lane->head - end : 0;
}

void shmlog_producer_settle(shmlog_producer *producer)
{
    if (producer->lane.slots && producer->owes_gap) {
        (void)shmlog_producer_make_room(producer, 0);
    }
}

enum shmlog_reason shmlog_producer_why_full(const shmlog_producer *producer)
{
    /* relaxed: a hint; the flusher sets it long before the lane is full. */
    bool failing = atomic_load_explicit(&producer->segment->header->disk_error, memory_order_relaxed) != 0;
    return failing ? SHMLOG_DROP_DISK : SHMLOG_DROP_FULL;
}

void shmlog_producer_drop(shmlog_producer *producer, enum shmlog_reason reason, uint64_t records)
{
    producer->dropped[reason] += records;
    if (!producer->lane.slots) {
        if (producer->segment && reason != SHMLOG_DROP_CLOSED) {
            /* relaxed: a counter; the only word that several producers change. */
            atomic_fetch_add_explicit(&producer->segment->header->unlaned[reason], records, memory_order_relaxed);
        }
        return;
    }
    _Atomic uint64_t *count = &producer->lane.shared->dropped[reason];
    /* relaxed: we are the only writer. */
    uint64_t old = atomic_load_explicit(count, memory_order_relaxed);
    atomic_store_explicit(count, old + records, memory_order_relaxed); /* relaxed: a counter */
    producer->owes_gap = true;
    shmlog_lane_forbid(&producer->lane); /* the next record puts the GAP first */
    /* CUT: either the flusher, which looks at the counts after the cut, sees this one, or the caller sees
     * the cut. */
    atomic_thread_fence(memory_order_seq_cst);
}

void shmlog_producer_add_counts(shmlog_producer *sum, const shmlog_producer *producer)
{
    sum->logged += producer->logged;
    sum->waits += producer->waits;
    sum->waited_ns += producer->waited_ns;
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        sum->dropped[reason] += producer->dropped[reason];
    }
}

/* ---- waiting ---- */

#define FREE_WAITING_NS (10 * NS_PER_S)
#define START_PATIENCE_NS (10 * NS_PER_S)
#define PROBE_EVERY_NS (20 * NS_PER_MS)

bool shmlog_flusher_lives(int lock_fd)
{
    return shmlog_lock_probe(lock_fd, SHMLOG_LOCK_FLUSHER) != 0 || shmlog_lock_probe(lock_fd, SHMLOG_LOCK_START) != 0;
}

bool shmlog_flusher_is_starting(const shmlog_header *header, int64_t now)
{
    /* CONTROL, acquire side. */
    if (atomic_load_explicit(&header->flusher_state, memory_order_acquire) == SHMLOG_FLUSHER_RUNNING) {
        return false;
    }
    /* relaxed: only compared with the time now. */
    int64_t started = (int64_t)atomic_load_explicit(&header->started_ns, memory_order_relaxed);
    /* In a time namespace the clock that it was started by may be far ahead of ours. */
    return now >= started && now - started < START_PATIENCE_NS;
}

/* At most 5 % of wall time after the first ten seconds. */
static bool may_spend_time(const shmlog_producer *producer, int64_t now)
{
    int64_t late = now - producer->joined_ns - FREE_WAITING_NS;
    return late <= 0 || producer->late_waited_ns * 20 <= late;
}

static uint64_t progress_of(const shmlog_producer *producer)
{
    /* relaxed: only compared. */
    return atomic_load_explicit(&producer->segment->header->progress, memory_order_relaxed);
}

shmlog_wait_state shmlog_producer_wait_begin(shmlog_producer *producer, shmlog_wait *wait)
{
    int64_t now = shmlog_clock_ns(CLOCK_MONOTONIC);
    uint64_t tail = producer->lane.tail_seen;

    if (!producer->drop_policy.wait || producer->gave_up_tail == tail + 1 || !may_spend_time(producer, now)) {
        return SHMLOG_WAIT_OVER;
    }
    *wait = (shmlog_wait){.since_ns = now, .tail = tail, .nap_ns = 50000, .begun_ns = now, .probed_ns = 0};
    wait->progress = progress_of(producer);
    return SHMLOG_WAIT_AGAIN;
}

static bool flusher_is_dead(const shmlog_producer *producer, shmlog_wait *wait, int64_t now)
{
    if (now - wait->probed_ns < PROBE_EVERY_NS) {
        return false;
    }
    wait->probed_ns = now;
    bool is_there = shmlog_description_is_there(&producer->lock);
    int fd = is_there ? producer->lock.fd : shmlog_description_reopen(&producer->segment->file, producer->path);
    bool is_dead = fd >= 0 && !shmlog_flusher_lives(fd);
    if (!is_there && fd >= 0) {
        close(fd);
    }
    return is_dead;
}

shmlog_wait_state shmlog_producer_wait_nap(const shmlog_producer *producer, shmlog_wait *wait)
{
    struct timespec nap = {0, (long)wait->nap_ns};
    nanosleep(&nap, NULL);
    wait->nap_ns = wait->nap_ns < NS_PER_MS / 2 ? wait->nap_ns * 2 : NS_PER_MS;

    int64_t now = shmlog_clock_ns(CLOCK_MONOTONIC);
    /* relaxed: only compared; make_room() does the acquire. */
    uint64_t tail = atomic_load_explicit(&producer->lane.shared->tail, memory_order_relaxed);
    uint64_t progress = progress_of(producer);
    /* A flusher that starts, for ten seconds at most, is progress. So is one that seals: a slow
     * disk, and not a dead one, holds its drain. */
    if (tail != wait->tail || progress != wait->progress) {
        wait->tail = tail;
        wait->progress = progress;
        wait->since_ns = now;
    } else if (flusher_is_dead(producer, wait, now)) {
        return SHMLOG_WAIT_DEAD;
    } else if (shmlog_flusher_is_starting(producer->segment->header, now)) {
        wait->since_ns = now;
    }
    return now - wait->since_ns < producer->drop_policy.max_wait_ns ? SHMLOG_WAIT_AGAIN : SHMLOG_WAIT_OVER;
}

void shmlog_producer_wait_end(shmlog_producer *producer, const shmlog_wait *wait, bool room)
{
    int64_t now = shmlog_clock_ns(CLOCK_MONOTONIC);
    int64_t waited = now - wait->begun_ns;

    producer->waits++;
    producer->waited_ns += (uint64_t)waited;
    if (now - producer->joined_ns > FREE_WAITING_NS) {
        producer->late_waited_ns += waited;
    }
    producer->gave_up_tail = room ? 0 : wait->tail + 1;
    if (producer->lane.slots) {
        shmlog_lane_header *shared = producer->lane.shared;
        /* relaxed: counters for monitors, of which we are the only writer. */
        atomic_store_explicit(&shared->waits, producer->waits, memory_order_relaxed);
        /* relaxed: as above. */
        atomic_store_explicit(&shared->waited_ns, producer->waited_ns, memory_order_relaxed);
    }
}
