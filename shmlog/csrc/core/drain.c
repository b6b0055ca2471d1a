#include "drain.h"

#include "clock.h"
#include "frame.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FRAME_SLOTS = 1 << 14 }; /* small enough that tails move every few milliseconds */

/* ---- memory ---- */

int shmlog_drain_open(shmlog_drain *drain, shmlog_segment *segment, int folder, uint32_t log, sem_t *bell)
{
    uint32_t lanes = segment->lane_count;

    memset(drain, 0, sizeof *drain);
    shmlog_drain_limit(drain, UINT32_MAX);
    drain->segment = segment;
    uint32_t unit_max = shmlog_unit_max(segment->lane_slots);
    drain->frame_slots = unit_max > FRAME_SLOTS ? unit_max : FRAME_SLOTS;
    drain->folder = folder;
    atomic_store_explicit(&drain->next_folder, -1, memory_order_relaxed); /* relaxed: nobody else has it yet */
    drain->fd = -1;
    drain->bell = bell;
    drain->log = log;
    /* CONTROL, acquire side. A request that was noted and not carried out is noted anew. */
    uint32_t finished = atomic_load_explicit(&segment->header->finish_done, memory_order_acquire);
    atomic_store_explicit(&drain->noted, finished, memory_order_relaxed); /* relaxed: nobody else has it yet */
    drain->doubted_below = log; /* nobody knows how an fsync of the last flusher has ended */
    drain->cursors = calloc(lanes, sizeof *drain->cursors);
    drain->staged = calloc(lanes, sizeof *drain->staged);
    drain->asked = calloc(lanes, sizeof *drain->asked);
    drain->names_seen = calloc(1, SHMLOG_FRAME_NAME_BITMAP);
    drain->names_staged = calloc(1, SHMLOG_FRAME_NAME_BITMAP);
    drain->names_twice = calloc(1, SHMLOG_FRAME_NAME_BITMAP);
    drain->frame.entries = malloc((size_t)lanes * SHMLOG_FRAME_ENTRY_BYTES);
    drain->frame.names = malloc(SHMLOG_FRAME_NAMES_BYTES);
    drain->frame.owners = malloc((size_t)lanes * (8 + SHMLOG_OWNER_BYTES_MAX));
    drain->frame.slots = malloc((size_t)drain->frame_slots * sizeof(shmlog_slot));
    if (!drain->cursors || !drain->staged || !drain->asked || !drain->names_seen || !drain->names_staged ||
        !drain->names_twice || !drain->frame.entries || !drain->frame.names || !drain->frame.owners || !drain->frame.slots) {
        drain->folder = -1; /* still the caller's */
        drain->bell = NULL;
        shmlog_drain_close(drain);
        return ENOMEM;
    }
    return 0;
}

void shmlog_drain_stop(shmlog_drain *drain)
{
    /* REQUEST, release side: what the caller did before is seen by the drain. */
    atomic_store_explicit(&drain->stop, 1, memory_order_release);
}

uint32_t shmlog_drain_rotate(shmlog_drain *drain)
{
    /* REQUEST, release side. */
    return atomic_fetch_add_explicit(&drain->rotate, 1, memory_order_release) + 1;
}

static void close_folder(int folder)
{
    if (folder >= 0) {
        close(folder);
    }
}

void shmlog_drain_move(shmlog_drain *drain, int folder)
{
    /* REQUEST, both sides: of two that come before the next log, the first is closed here. */
    close_folder(atomic_exchange_explicit(&drain->next_folder, folder, memory_order_acq_rel));
}

void shmlog_drain_limit(shmlog_drain *drain, uint32_t limit)
{
    atomic_store_explicit(&drain->limit, limit, memory_order_relaxed); /* relaxed: as in is_limited() */
}

void shmlog_drain_close(shmlog_drain *drain)
{
    free(drain->cursors);
    free(drain->staged);
    free(drain->asked);
    free(drain->names_seen);
    free(drain->names_staged);
    free(drain->names_twice);
    free(drain->frame.entries);
    free(drain->frame.names);
    free(drain->frame.owners);
    free(drain->frame.slots);
    if (drain->fd >= 0) {
        close(drain->fd);
    }
    close_folder(drain->folder);
    shmlog_drain_move(drain, -1);
    if (drain->bell) {
        sem_close(drain->bell);
    }
    memset(drain, 0, sizeof *drain);
    drain->fd = drain->folder = -1;
}

/* ---- passes ---- */

static uint64_t gapped(const shmlog_cursor *cursor)
{
    uint64_t total = 0;
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        total += cursor->gapped[reason];
    }
    return total;
}

static void publish_tail(shmlog_drain *drain, uint32_t number)
{
    shmlog_lane_header *shared = &drain->segment->lanes[number];
    const shmlog_cursor *cursor = &drain->cursors[number];
    /* relaxed: the lane's next owner reads it as a hint. */
    atomic_store_explicit(&shared->gapped, gapped(cursor), memory_order_relaxed);
    /* relaxed: another flusher looks only at what a flusher that has died has left. */
    atomic_store_explicit(&shared->seq, cursor->seq, memory_order_relaxed);
    atomic_store_explicit(&shared->tenancy, cursor->tenancy, memory_order_relaxed); /* relaxed: as above */
    /* RECLAIM, release side: our loads of the slots below come before any store
     * of the producer that acquires this. */
    atomic_store_explicit(&shared->tail, cursor->position, memory_order_release);
}

/* The frame is in the log: make the staged state the state, then publish. */
static void accept_frame(shmlog_drain *drain, size_t length)
{
    uint32_t lanes = drain->segment->lane_count;
    for (uint32_t number = 0; number < lanes; number++) {
        bool moved = drain->staged[number].position != drain->cursors[number].position;
        if (moved || drain->staged[number].used != drain->cursors[number].used ||
            drain->staged[number].told_once != drain->cursors[number].told_once) {
            drain->cursors[number] = drain->staged[number];
        }
        if (moved) {
            publish_tail(drain, number);
        }
    }
    if (drain->first) {
        memset(drain->names_twice, 0, SHMLOG_FRAME_NAME_BITMAP);
    } else {
        memcpy(drain->names_twice, drain->names_seen, SHMLOG_FRAME_NAME_BITMAP);
    }
    memcpy(drain->names_seen, drain->names_staged, SHMLOG_FRAME_NAME_BITMAP);
    drain->first = false;
    drain->index++;
    /* relaxed: counters for other threads of the flusher, and for monitors. */
    atomic_fetch_add_explicit(&drain->log_bytes, length, memory_order_relaxed);
    atomic_fetch_add_explicit(&drain->frames, 1, memory_order_relaxed); /* relaxed: as above */
    uint64_t slots = drain->frame.slots_bytes / sizeof(shmlog_slot);
    atomic_fetch_add_explicit(&drain->slots, slots, memory_order_relaxed); /* relaxed: as above */
    /* relaxed: as above */
    atomic_fetch_add_explicit(&drain->segment->header->progress, 1, memory_order_relaxed);
}

static void close_log(shmlog_drain *drain)
{
    if (drain->fd >= 0) {
        close(drain->fd);
        drain->fd = -1;
    }
}

/* Nothing goes behind a torn frame. Cutting it off gives its room back, which whoever
 * seals may need; if that fails, readers stop there. */
static void abandon_log(shmlog_drain *drain)
{
    /* relaxed: our own counter. */
    uint64_t whole = atomic_load_explicit(&drain->log_bytes, memory_order_relaxed);
    int unused = ftruncate(drain->fd, (off_t)whole);
    (void)unused;
    close_log(drain);
}

/* Write what is staged. Returns 0 or errno; then nothing was taken, and the next log is needed. */
static int put_frame(shmlog_drain *drain)
{
    size_t length;
    int error = shmlog_frame_write(drain, &length);
    if (error) {
        abandon_log(drain);
    } else {
        accept_frame(drain, length);
    }
    return error;
}

int shmlog_drain_pass(shmlog_drain *drain, shmlog_drained *drained)
{
    uint32_t lanes = drain->segment->lane_count;
    uint64_t most = 0;

    shmlog_frame_begin(drain);
    uint32_t begin = drain->next_lane;
    bool was_full = false;
    for (uint32_t i = 0; i < lanes; i++) {
        uint32_t number = (begin + i) % lanes;
        uint64_t slots = shmlog_frame_add_lane(drain, number);
        most = slots > most ? slots : most;
        if (drain->frame.is_full && !was_full) {
            was_full = true;
            drain->next_lane = number; /* the first that did not get all its due */
        }
    }
    drained->slots = drain->frame.slots_bytes / sizeof(shmlog_slot);
    drained->more = was_full;
    drained->busiest = (uint32_t)(most * 256 / drain->segment->lane_slots);
    if (drained->slots == 0 && !drain->first) {
        return 0;
    }
    if (drain->fd < 0) {
        return EBADF;
    }
    return put_frame(drain);
}

void shmlog_drain_restore(shmlog_drain *drain, uint32_t number, const shmlog_cursor *cursor)
{
    drain->cursors[number] = *cursor;
    drain->cursors[number].used = true;
    drain->staged[number] = drain->cursors[number];
    drain->known_lanes = number < drain->known_lanes ? drain->known_lanes : number + 1;
    publish_tail(drain, number);
}

/* ---- the end of the run ---- */

static bool is_in_use(const shmlog_lane_header *shared)
{
    /* ALLOT, acquire side. relaxed: `damaged` is our own flag. */
    return atomic_load_explicit(&shared->allotted, memory_order_acquire) &&
           !atomic_load_explicit(&shared->damaged, memory_order_relaxed); /* relaxed: as above */
}

static void note_drops(shmlog_lane_header *shared)
{
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        /* relaxed: CUT's barrier, or FINAL, orders us after what is to be told. */
        uint64_t count = atomic_load_explicit(&shared->dropped[reason], memory_order_relaxed);
        atomic_store_explicit(&shared->told[reason], count, memory_order_relaxed); /* relaxed: FINAL publishes it */
    }
}

/* Returns whether the lane goes on behind what is drained. */
static bool finalize_lane(shmlog_lane_header *shared, uint64_t drained)
{
    uint64_t final = atomic_load_explicit(&shared->final, memory_order_acquire); /* FINAL, acquire side */
    if (!final) {
        note_drops(shared);
        /* FINAL, both sides: see shmlog_producer_retire(). */
        (void)atomic_compare_exchange_strong_explicit(&shared->final, &final,
                                                      shmlog_final(drained, SHMLOG_FINAL_BY_FLUSHER),
                                                      memory_order_acq_rel, memory_order_acquire);
    }
    if (final && !(final & SHMLOG_FINAL_BY_FLUSHER)) {
        note_drops(shared); /* its producer counts nothing more */
        return shmlog_final_position(final) > drained;
    }
    return false;
}

bool shmlog_drain_finalize(shmlog_drain *drain)
{
    bool more = false;
    for (uint32_t number = 0; number < drain->segment->lane_count; number++) {
        shmlog_lane_header *shared = &drain->segment->lanes[number];
        if (is_in_use(shared)) {
            more = finalize_lane(shared, drain->cursors[number].position) || more;
        }
    }
    return more;
}

/* Whether the lane has drops that no GAP tells yet; `counts` are all of them, by reason. */
static bool owes_gap(const shmlog_drain *drain, uint32_t number, uint64_t counts[SHMLOG_REASONS])
{
    const shmlog_lane_header *shared = &drain->segment->lanes[number];
    bool owes = false;
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        counts[reason] = atomic_load_explicit(&shared->told[reason], memory_order_relaxed); /* relaxed: our own */
        owes = owes || counts[reason] > drain->cursors[number].gapped[reason];
    }
    return owes;
}

int shmlog_drain_settle(shmlog_drain *drain)
{
    uint64_t counts[SHMLOG_REASONS];
    if (drain->fd < 0) {
        return EBADF;
    }
    shmlog_frame_begin(drain);
    for (uint32_t number = 0; number < drain->segment->lane_count; number++) {
        if (is_in_use(&drain->segment->lanes[number]) && owes_gap(drain, number, counts)) {
            shmlog_frame_add_gap(drain, number, counts);
        }
    }
    if (drain->frame.slots_bytes == 0) {
        return 0;
    }
    return put_frame(drain);
}

/* ---- syncing ---- */

bool shmlog_drain_sync_is_wanted(const shmlog_drain *drain)
{
    for (uint32_t number = 0; number < drain->known_lanes; number++) {
        const shmlog_lane_header *shared = &drain->segment->lanes[number];
        /* SYNC, acquire side: what was committed before the request is drained
         * before the answer. */
        uint64_t wanted = atomic_load_explicit(&shared->sync_request, memory_order_acquire);
        /* relaxed: written by this thread alone. */
        uint64_t synced = atomic_load_explicit(&shared->synced, memory_order_relaxed);
        if (wanted > synced && synced < drain->cursors[number].position) {
            return true;
        }
    }
    return false;
}

static int sync_file(int fd)
{
    while (fsync(fd) != 0) {
        if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

static int open_file(const shmlog_drain *drain, uint32_t number, int flags)
{
    char name[32];
    snprintf(name, sizeof name, "%06u.wal", number);
    /* Another's FIFO in its place must not make the open wait. */
    return openat(drain->folder, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
}

/* See shmlog_drain_sync(). A log that is gone is sealed. */
static int sync_closed_log(shmlog_drain *drain, uint32_t number)
{
    int fd = open_file(drain, number, O_RDONLY);
    if (fd < 0) {
        return errno == ENOENT ? 0 : errno;
    }
    int error = EAGAIN;
    if (number >= drain->doubted_below) {
        error = sync_file(fd);
        drain->doubted_below = error ? number + 1 : drain->doubted_below;
    }
    close(fd);
    return error;
}

static int sync_closed_logs(shmlog_drain *drain)
{
    while (drain->synced_below < drain->log) {
        int error = sync_closed_log(drain, drain->synced_below);
        if (error) {
            return error;
        }
        drain->synced_below++;
    }
    return 0;
}

static int sync_open_log(shmlog_drain *drain)
{
    int error = sync_file(drain->fd);
    if (error) {
        drain->doubted_below = drain->log + 1;
    } else if (!drain->named) {
        error = sync_file(drain->folder);
        drain->named = error == 0;
    }
    return error;
}

int shmlog_drain_sync(shmlog_drain *drain)
{
    if (drain->fd < 0) {
        return EBADF;
    }
    int error = sync_closed_logs(drain);
    if (error == 0) {
        error = sync_open_log(drain);
    }
    if (error) {
        return error;
    }
    for (uint32_t number = 0; number < drain->segment->lane_count; number++) {
        /* SYNC, release side: the log up to here is on the disk. */
        atomic_store_explicit(&drain->segment->lanes[number].synced, drain->cursors[number].position,
                              memory_order_release);
    }
    return 0;
}

/* ---- logs ---- */

/* Open log `number`, empty: what a failed try has left in it was never accepted. If what is there is not ours, it is let
 * alone, and the log is the first behind it that is not there. */
static int open_log(shmlog_drain *drain, uint32_t number)
{
    close_log(drain);
    int folder = atomic_exchange_explicit(&drain->next_folder, -1, memory_order_acq_rel); /* REQUEST, acquire side */
    if (folder >= 0) {
        close_folder(drain->folder);
        drain->folder = folder;
    }
    bool is_ours = folder < 0 && drain->is_made && number == drain->log;
    int flags = O_WRONLY | O_CREAT | O_APPEND | (is_ours ? O_TRUNC : O_EXCL);
    while ((drain->fd = open_file(drain, number, flags)) < 0 && errno == EEXIST) {
        number++;
    }
    drain->is_made = drain->fd >= 0 || is_ours;
    drain->log = number;
    drain->index = 0;
    drain->first = true;
    drain->named = false;
    atomic_store_explicit(&drain->log_bytes, 0, memory_order_relaxed); /* relaxed: a counter */
    return drain->fd < 0 ? errno : 0;
}

int shmlog_drain_next_log(shmlog_drain *drain)
{
    shmlog_drained drained;
    int error = open_log(drain, drain->index ? drain->log + 1 : drain->log);
    if (error == 0) {
        error = shmlog_drain_pass(drain, &drained);
    }
    if (error == 0) {
        /* CLOSED, release side. */
        atomic_store_explicit(&drain->closed_below, drain->log, memory_order_release);
    }
    return error;
}
