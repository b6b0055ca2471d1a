#include "drain.h"

#include "clock.h"
#include "crc32.h"
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    HEADER_BYTES = 64,
    FIXED_BYTES = HEADER_BYTES + 2 * (int)sizeof(shmlog_anchor) + SHMLOG_REASONS * 8,
    ENTRY_BYTES = 80,
    FRAME_SLOTS = 1 << 14, /* small enough that tails move every few milliseconds */
    NAMES_BYTES = SHMLOG_NAMES_MAX * 16 + SHMLOG_NAME_TEXT_BYTES,
    NAME_BITMAP = SHMLOG_NAMES_MAX / 8,
    BUSY = 256 / 16
};

_Static_assert(FIXED_BYTES == 160, "docs/format.md");

/* ---- memory ---- */

int shmlog_drain_open(shmlog_drain *drain, shmlog_segment *segment, int folder, uint32_t log, sem_t *bell)
{
    uint32_t lanes = segment->lane_count;

    memset(drain, 0, sizeof *drain);
    shmlog_drain_limit(drain, UINT32_MAX);
    drain->segment = segment;
    drain->frame_slots = segment->lane_slots / 4 > FRAME_SLOTS ? segment->lane_slots / 4 : FRAME_SLOTS;
    drain->folder = folder;
    drain->fd = -1;
    drain->bell = bell;
    drain->log = log;
    drain->doubted_below = log; /* nobody knows how an fsync of the last flusher has ended */
    drain->cursors = calloc(lanes, sizeof *drain->cursors);
    drain->staged = calloc(lanes, sizeof *drain->staged);
    drain->names_seen = calloc(1, NAME_BITMAP);
    drain->names_staged = calloc(1, NAME_BITMAP);
    drain->frame.entries = malloc((size_t)lanes * ENTRY_BYTES);
    drain->frame.names = malloc(NAMES_BYTES);
    drain->frame.owners = malloc((size_t)lanes * (8 + SHMLOG_OWNER_BYTES_MAX));
    drain->frame.slots = malloc((size_t)drain->frame_slots * sizeof(shmlog_slot));
    if (!drain->cursors || !drain->staged || !drain->names_seen || !drain->names_staged ||
        !drain->frame.entries || !drain->frame.names || !drain->frame.owners || !drain->frame.slots) {
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

void shmlog_drain_limit(shmlog_drain *drain, uint32_t limit)
{
    atomic_store_explicit(&drain->limit, limit, memory_order_relaxed); /* relaxed: as in is_limited() */
}

void shmlog_drain_close(shmlog_drain *drain)
{
    free(drain->cursors);
    free(drain->staged);
    free(drain->names_seen);
    free(drain->names_staged);
    free(drain->frame.entries);
    free(drain->frame.names);
    free(drain->frame.owners);
    free(drain->frame.slots);
    if (drain->fd >= 0) {
        close(drain->fd);
    }
    if (drain->folder >= 0) {
        close(drain->folder);
    }
    if (drain->bell) {
        sem_close(drain->bell);
    }
    memset(drain, 0, sizeof *drain);
    drain->fd = drain->folder = -1;
}

/* ---- little-endian pieces of a frame ---- */

static void put_u32(unsigned char *at, uint32_t value) { memcpy(at, &value, sizeof value); }
static void put_u64(unsigned char *at, uint64_t value) { memcpy(at, &value, sizeof value); }

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "frames are written in host order, which must be little-endian"
#endif

/* An id or lane, a length and a text, padded to a multiple of 8. Returns the bytes used. */
static size_t put_text(unsigned char *at, uint32_t number, const char *text, uint32_t bytes)
{
    size_t padded = (size_t)(bytes + 7) / 8 * 8;
    put_u32(at, number);
    put_u32(at + 4, bytes);
    memset(at + 8, 0, padded);
    memcpy(at + 8, text, bytes);
    return 8 + padded;
}

/* ---- names ---- */

static bool has_bit(const uint8_t *bitmap, uint32_t bit) { return bitmap[bit / 8] >> bit % 8 & 1; }

/* Have the frame define the name, unless this log does already. */
static bool define_name(shmlog_drain *drain, uint32_t id)
{
    shmlog_frame *frame = &drain->frame;
    const char *text;
    uint32_t bytes;

    if (id < SHMLOG_NAMES_MAX && has_bit(drain->names_staged, id)) {
        return true;
    }
    if (!shmlog_name_text(drain->segment->names, id, &text, &bytes)) {
        return false;
    }
    if (frame->names_bytes + 16 + bytes > NAMES_BYTES) {
        return false;
    }
    frame->names_bytes += put_text(frame->names + frame->names_bytes, id, text, bytes);
    frame->name_count++;
    drain->names_staged[id / 8] = (uint8_t)(drain->names_staged[id / 8] | 1u << id % 8);
    return true;
}

static void repeat_names(shmlog_drain *drain)
{
    memset(drain->names_staged, 0, NAME_BITMAP);
    for (uint32_t id = 0; id < SHMLOG_NAMES_MAX; id++) {
        if (has_bit(drain->names_seen, id)) {
            (void)define_name(drain, id);
        }
    }
}

/* ---- lanes ---- */

static void view_lane(const shmlog_segment *segment, uint32_t number, shmlog_lane *lane)
{
    memset(lane, 0, sizeof *lane);
    lane->shared = &segment->lanes[number];
    lane->slots = shmlog_segment_slots(segment, number);
    lane->mask = segment->lane_slots - 1;
    lane->shift = segment->shift;
}

static void copy_data(const shmlog_lane *lane, uint64_t position, uint32_t slots, unsigned char *to, size_t room)
{
    for (uint32_t i = 1; i < slots && room; i++) {
        const shmlog_slot *slot = shmlog_slot_at(lane, position + i);
        size_t bytes = room < SHMLOG_DATA_BYTES ? room : SHMLOG_DATA_BYTES;
        memcpy(to, slot, bytes); /* ts, value and step are the first 24 bytes */
        to += bytes;
        room -= bytes;
    }
}

static bool is_record(unsigned kind) { return kind >= SHMLOG_FLOAT && kind <= SHMLOG_LONGTEXT; }

/* The records of a row: how many, all with names that the log will define. */
static bool take_row(shmlog_drain *drain, const shmlog_lane *lane, uint64_t position, const shmlog_unit *unit,
                     uint64_t *records)
{
    for (uint32_t i = 1; i < unit->slots; i++) {
        /* relaxed: shmlog_lane_peek() has done the acquire of COMMIT. */
        uint64_t commit =
            atomic_load_explicit(&shmlog_slot_at(lane, position + i)->commit, memory_order_relaxed);
        if (is_record(shmlog_commit_kind(commit))) {
            ++*records;
            if (!define_name(drain, shmlog_commit_name(commit))) {
                return false;
            }
        }
    }
    return *records == shmlog_extent_count(unit->value);
}

static void take_gap(const shmlog_lane *lane, uint64_t position, shmlog_cursor *cursor)
{
    uint64_t counts[SHMLOG_REASONS];
    copy_data(lane, position, SHMLOG_GAP_SLOTS, (unsigned char *)counts, sizeof counts);
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        if (counts[reason] > cursor->gapped[reason]) {
            cursor->seq += counts[reason] - cursor->gapped[reason];
            cursor->gapped[reason] = counts[reason];
        }
    }
}

static void take_owner(const shmlog_lane *lane, uint64_t position, const shmlog_unit *unit, shmlog_cursor *cursor)
{
    cursor->tenancy++;
    cursor->owner_bytes = shmlog_extent_count(unit->value);
    copy_data(lane, position, unit->slots, (unsigned char *)cursor->owner, cursor->owner_bytes);
}

/* Bring the cursor behind the unit. False: the unit makes no sense. */
static bool take_unit(shmlog_drain *drain, const shmlog_lane *lane, const shmlog_unit *unit, shmlog_cursor *cursor)
{
    uint64_t records = 0;

    switch (unit->kind) {
    case SHMLOG_GAP:
        take_gap(lane, cursor->position, cursor);
        break;
    case SHMLOG_OWNER:
        take_owner(lane, cursor->position, unit, cursor);
        break;
    case SHMLOG_ROW:
        if (!take_row(drain, lane, cursor->position, unit, &records)) {
            return false;
        }
        break;
    default:
        if (!define_name(drain, unit->name_id)) {
            return false;
        }
        records = 1;
    }
    cursor->seq += records;
    cursor->position += unit->slots;
    return true;
}

static void mark_damaged(const shmlog_lane *lane)
{
    atomic_store_explicit(&lane->shared->damaged, 1, memory_order_relaxed); /* relaxed: a flag for monitors */
}

/* Bring the staged cursor behind all whole units that fit the frame. */
static void walk_lane(shmlog_drain *drain, const shmlog_lane *lane, shmlog_cursor *cursor, uint64_t slots_max)
{
    drain->frame.is_full = slots_max == 0;
    uint64_t begin = cursor->position;
    uint64_t end = begin + shmlog_lane_capacity(lane);
    uint64_t stop = begin + slots_max;
    shmlog_unit unit;

    while (cursor->position < stop) {
        shmlog_unit_state state =
            shmlog_lane_peek(lane, cursor->position, (uint32_t)(end - cursor->position), &unit);
        if (state == SHMLOG_UNIT_NONE) {
            return;
        }
        if (state == SHMLOG_UNIT_WHOLE && cursor->position + unit.slots > stop) {
            break;
        }
        if (state == SHMLOG_UNIT_DAMAGED || !take_unit(drain, lane, &unit, cursor)) {
            mark_damaged(lane);
            return;
        }
    }
    drain->frame.is_full = true;
}

static void copy_slots(const shmlog_lane *lane, uint64_t position, uint64_t slots, unsigned char *to)
{
    uint64_t first = position & lane->mask;
    uint64_t until_wrap = shmlog_lane_capacity(lane) - first;
    uint64_t head = slots < until_wrap ? slots : until_wrap;

    memcpy(to, &lane->slots[first], head * sizeof(shmlog_slot));
    memcpy(to + head * sizeof(shmlog_slot), lane->slots, (slots - head) * sizeof(shmlog_slot));
}

static void add_entry(shmlog_frame *frame, uint32_t number, const shmlog_cursor *before, uint64_t slots)
{
    unsigned char *entry = frame->entries + frame->entries_bytes;
    put_u32(entry, number);
    put_u32(entry + 4, (uint32_t)slots);
    put_u64(entry + 8, before->position);
    put_u64(entry + 16, before->seq);
    put_u32(entry + 24, before->tenancy);
    put_u32(entry + 28, 0);
    memcpy(entry + 32, before->gapped, sizeof before->gapped);
    frame->entries_bytes += ENTRY_BYTES;
    frame->lane_count++;
}

static void add_owner(shmlog_frame *frame, uint32_t number, const shmlog_cursor *cursor)
{
    if (cursor->tenancy) {
        frame->owners_bytes +=
            put_text(frame->owners + frame->owners_bytes, number, cursor->owner, cursor->owner_bytes);
        frame->owner_count++;
    }
}

/* Returns the slots that the lane gave to the frame. */
static uint64_t stage_lane(shmlog_drain *drain, uint32_t number)
{
    shmlog_frame *frame = &drain->frame;
    shmlog_cursor *cursor = &drain->staged[number];
    const shmlog_cursor *before = &drain->cursors[number];
    shmlog_lane lane;

    view_lane(drain->segment, number, &lane);
    /* ALLOT, acquire side: the lane has memory. */
    if (!atomic_load_explicit(&lane.shared->allotted, memory_order_acquire)) {
        return 0;
    }
    drain->known_lanes = number < drain->known_lanes ? drain->known_lanes : number + 1;
    *cursor = *before;
    cursor->used = true;
    /* relaxed: our own flag. A damaged lane gives nothing any more. */
    if (!atomic_load_explicit(&lane.shared->damaged, memory_order_relaxed)) {
        walk_lane(drain, &lane, cursor, drain->frame_slots - frame->slots_bytes / sizeof(shmlog_slot));
    }
    uint64_t slots = cursor->position - before->position;
    uint32_t number_in_run = drain->segment->header->first_lane + number;
    if (slots || (drain->first && cursor->used)) {
        add_entry(frame, number_in_run, before, slots);
        copy_slots(&lane, before->position, slots, frame->slots + frame->slots_bytes);
        frame->slots_bytes += slots * sizeof(shmlog_slot);
    }
    if (drain->first) {
        add_owner(frame, number_in_run, before);
    }
    return slots;
}

/* ---- frames ---- */

static void begin_frame(shmlog_drain *drain)
{
    shmlog_frame *frame = &drain->frame;
    frame->entries_bytes = frame->names_bytes = frame->owners_bytes = frame->slots_bytes = 0;
    frame->lane_count = frame->name_count = frame->owner_count = 0;
    frame->is_full = false;
    memcpy(drain->names_staged, drain->names_seen, NAME_BITMAP);
    if (drain->first) {
        repeat_names(drain);
    }
}

static void fill_header(const shmlog_drain *drain, unsigned char *header, size_t length)
{
    const shmlog_frame *frame = &drain->frame;
    const shmlog_header *shared = drain->segment->header;
    shmlog_anchor now = shmlog_clock_anchor(drain->segment->tsc);
    unsigned char *unlaned = header + HEADER_BYTES + 2 * sizeof now;

    memset(header, 0, FIXED_BYTES);
    memcpy(header, "SLF1", 4);
    put_u64(header + 8, length);
    put_u32(header + 16, drain->log);
    put_u32(header + 20, drain->index);
    put_u32(header + 24, frame->lane_count);
    put_u32(header + 28, frame->name_count);
    put_u32(header + 32, frame->owner_count);
    put_u32(header + 36, (uint32_t)(frame->slots_bytes / sizeof(shmlog_slot)));
    put_u32(header + 40, drain->first);
    put_u32(header + 44, drain->segment->tsc ? SHMLOG_CLOCK_TSC : SHMLOG_CLOCK_MONOTONIC);
    put_u32(header + 48, (uint32_t)frame->names_bytes);
    put_u32(header + 52, (uint32_t)frame->owners_bytes);
    memcpy(header + HEADER_BYTES, &shared->anchor, sizeof now);
    memcpy(header + HEADER_BYTES + sizeof now, &now, sizeof now);
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        /* relaxed: a counter. */
        put_u64(unlaned + 8 * reason, atomic_load_explicit(&shared->unlaned[reason], memory_order_relaxed));
    }
}

static int write_all(int fd, struct iovec *pieces, int count)
{
    while (count) {
        ssize_t written = writev(fd, pieces, count);
        if (written < 0 && errno != EINTR) {
            return errno;
        }
        size_t left = written > 0 ? (size_t)written : 0;
        while (count && left >= pieces->iov_len) {
            left -= pieces->iov_len;
            pieces++;
            count--;
        }
        if (count) {
            pieces->iov_base = (unsigned char *)pieces->iov_base + left;
            pieces->iov_len -= left;
        }
    }
    return 0;
}

static int write_frame(shmlog_drain *drain, size_t *length)
{
    shmlog_frame *frame = &drain->frame;
    unsigned char header[FIXED_BYTES];
    struct iovec pieces[] = {{header, FIXED_BYTES},
                             {frame->entries, frame->entries_bytes},
                             {frame->names, frame->names_bytes},
                             {frame->owners, frame->owners_bytes},
                             {frame->slots, frame->slots_bytes}};
    enum { PIECES = sizeof pieces / sizeof *pieces };

    *length = 0;
    for (int i = 0; i < PIECES; i++) {
        *length += pieces[i].iov_len;
    }
    fill_header(drain, header, *length);
    uint32_t crc = shmlog_crc32(0, header + 8, FIXED_BYTES - 8);
    for (int i = 1; i < PIECES; i++) {
        crc = shmlog_crc32(crc, pieces[i].iov_base, pieces[i].iov_len);
    }
    put_u32(header + 4, crc);
    return write_all(drain->fd, pieces, PIECES);
}

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
        if (moved || drain->staged[number].used != drain->cursors[number].used) {
            drain->cursors[number] = drain->staged[number];
        }
        if (moved) {
            publish_tail(drain, number);
        }
    }
    memcpy(drain->names_seen, drain->names_staged, NAME_BITMAP);
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

int shmlog_drain_pass(shmlog_drain *drain, shmlog_drained *drained)
{
    uint32_t lanes = drain->segment->lane_count;
    uint64_t most = 0;
    size_t length;

    begin_frame(drain);
    uint32_t begin = drain->next_lane;
    bool was_full = false;
    for (uint32_t i = 0; i < lanes; i++) {
        uint32_t number = (begin + i) % lanes;
        uint64_t slots = stage_lane(drain, number);
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
    int error = write_frame(drain, &length);
    if (error) {
        abandon_log(drain);
    } else {
        accept_frame(drain, length);
    }
    return error;
}

void shmlog_drain_restore(shmlog_drain *drain, uint32_t number, const shmlog_cursor *cursor)
{
    drain->cursors[number] = *cursor;
    drain->cursors[number].used = true;
    drain->staged[number] = drain->cursors[number];
    publish_tail(drain, number);
}

/* A GAP with the lane's drops by reason; false if all are told already. */
static bool settle_lane(const shmlog_drain *drain, uint32_t number)
{
    const shmlog_cursor *cursor = &drain->cursors[number];
    uint64_t counts[SHMLOG_REASONS];
    bool owes = false;
    shmlog_lane lane;

    view_lane(drain->segment, number, &lane);
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        /* relaxed: its owner is gone. */
        counts[reason] = atomic_load_explicit(&lane.shared->dropped[reason], memory_order_relaxed);
        owes = owes || counts[reason] > cursor->gapped[reason];
    }
    if (owes) {
        shmlog_unit_head head = {shmlog_ticks(drain->segment->tsc), 0, 0, SHMLOG_GAP, 0};
        (void)shmlog_lane_write_bytes(&lane, cursor->position, &head, counts, sizeof counts);
    }
    return owes;
}

bool shmlog_drain_settle(shmlog_drain *drain)
{
    bool owes = false;
    for (uint32_t number = 0; number < drain->segment->lane_count; number++) {
        const shmlog_lane_header *shared = &drain->segment->lanes[number];
        /* ALLOT, acquire side. relaxed: `damaged` is our own flag. */
        if (atomic_load_explicit(&shared->allotted, memory_order_acquire) &&
            !atomic_load_explicit(&shared->damaged, memory_order_relaxed)) {
            owes = settle_lane(drain, number) || owes;
        }
    }
    return owes;
}

/* ---- syncing ---- */

static bool sync_is_wanted(const shmlog_drain *drain)
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
    return openat(drain->folder, name, flags | O_CLOEXEC | O_NOFOLLOW, 0666);
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

/* Open log `number`, empty: what a failed try has left in it was never accepted. */
static int open_log(shmlog_drain *drain, uint32_t number)
{
    close_log(drain);
    drain->fd = open_file(drain, number, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
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

/* ---- running ---- */

#define BUSY_NAP_NS 1000000L
#define IDLE_NAP_NS 50000000L
#define RETRY_NAP_NS 1000000000L

static bool is_stopped(const shmlog_drain *drain)
{
    return atomic_load_explicit(&drain->stop, memory_order_acquire) != 0; /* REQUEST, acquire side */
}

static void nap(long ns)
{
    struct timespec time = {ns / 1000000000L, ns % 1000000000L};
    nanosleep(&time, NULL);
}

/* Sleep until the doorbell rings, then forget all rings. */
static void wait_for_bell(const shmlog_drain *drain)
{
#if defined(__APPLE__)
    nap(drain->bell ? 2000000L : BUSY_NAP_NS); /* no sem_timedwait() there */
#else
    struct timespec until;
    if (!drain->bell) {
        nap(BUSY_NAP_NS);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += IDLE_NAP_NS;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    if (sem_timedwait(drain->bell, &until) == 0) {
        while (sem_trywait(drain->bell) == 0) {
        }
    }
#endif
}

/* Pass, and answer requests for fsync. */
static int drain_once(shmlog_drain *drain, shmlog_drained *drained)
{
    int error = shmlog_drain_pass(drain, drained);
    if (error == 0 && sync_is_wanted(drain)) {
        error = shmlog_drain_sync(drain);
        error = error == EAGAIN ? 0 : error; /* the next pass asks again */
    }
    return error;
}

static int drain_idly(shmlog_drain *drain)
{
    _Atomic uint32_t *sleeping = &drain->segment->header->sleeping;
    shmlog_drained drained;
    /* relaxed: a hint. Looking once more after it was set makes a wake-up that
     * is missed rare; it costs one nap, during which half a lane is free. */
    atomic_store_explicit(sleeping, 1, memory_order_relaxed);
    int error = drain_once(drain, &drained);
    drain->is_idle = error == 0 && drained.slots == 0;
    if (drain->is_idle) {
        wait_for_bell(drain);
    }
    atomic_store_explicit(sleeping, 0, memory_order_relaxed); /* relaxed: as above */
    if (error == 0 && drained.slots && !drained.more) {
        nap(BUSY_NAP_NS); /* else a frame for a few records follows the other while somebody logs without a pause */
    }
    return error;
}

/* Returns 0, or why the next log is needed. */
static int drain_busily(shmlog_drain *drain)
{
    shmlog_drained drained;
    if (drain->is_idle) {
        return drain_idly(drain); /* one look a nap is enough */
    }
    int error = drain_once(drain, &drained);
    if (error) {
        return error;
    }
    if (drained.more) {
        return 0;
    }
    if (drained.busiest >= BUSY) {
        nap(BUSY_NAP_NS);
        return 0;
    }
    return drain_idly(drain);
}

static void tell_error(shmlog_drain *drain, int error)
{
    atomic_store_explicit(&drain->error, error, memory_order_relaxed); /* relaxed: for people */
    /* relaxed: a hint for producers that have to drop. */
    atomic_store_explicit(&drain->segment->header->disk_error, (uint32_t)error, memory_order_relaxed);
}

/* Open the next log, trying again until it works or the drain is to stop. */
static void change_log(shmlog_drain *drain)
{
    int error;
    while ((error = shmlog_drain_next_log(drain)) != 0) {
        tell_error(drain, error);
        if (is_stopped(drain)) {
            return;
        }
        nap(RETRY_NAP_NS);
    }
    tell_error(drain, 0);
}

static bool is_log_large(const shmlog_drain *drain, uint64_t log_bytes_max)
{
    /* relaxed: our own counter. */
    return atomic_load_explicit(&drain->log_bytes, memory_order_relaxed) >= log_bytes_max;
}

/* Whether the next log may not be opened yet. */
static bool is_limited(const shmlog_drain *drain)
{
    /* relaxed: a number that is looked at again and again. */
    return drain->log + 1 >= atomic_load_explicit(&drain->limit, memory_order_relaxed);
}

/* Leave the lanes to fill, but answer requests for fsync. Returns 0 or errno. */
static int hold(shmlog_drain *drain)
{
    int error = sync_is_wanted(drain) ? shmlog_drain_sync(drain) : 0;
    nap(BUSY_NAP_NS);
    return error == EAGAIN ? 0 : error;
}

/* Drain all that the lanes hold now, though not what is added without end meanwhile. */
static int drain_backlog(shmlog_drain *drain, uint64_t log_bytes_max)
{
    uint64_t slots = (uint64_t)drain->segment->lane_count * drain->segment->lane_slots;
    shmlog_drained drained = {.more = true};
    int error = 0;
    for (uint64_t taken = 0; error == 0 && drained.more && taken < slots; taken += drained.slots) {
        if (is_log_large(drain, log_bytes_max)) {
            change_log(drain);
        }
        error = shmlog_drain_pass(drain, &drained);
    }
    return error;
}

void shmlog_drain_run(shmlog_drain *drain, uint64_t log_bytes_max)
{
    /* CONTROL, release side: from now on lanes are drained, whatever the rest of
     * the flusher is still busy with. */
    atomic_store_explicit(&drain->segment->header->flusher_state, SHMLOG_FLUSHER_RUNNING, memory_order_release);
    if (drain->fd < 0) {
        change_log(drain);
    }
    uint32_t rotated = 0;
    while (!is_stopped(drain)) {
        bool is_held = is_log_large(drain, log_bytes_max) && is_limited(drain);
        int error = is_held ? hold(drain) : drain_busily(drain);
        uint32_t rotate = atomic_load_explicit(&drain->rotate, memory_order_acquire); /* REQUEST, acquire side */
        if (error == 0 && rotate != rotated) {
            error = drain_backlog(drain, log_bytes_max);
        }
        if (error) {
            tell_error(drain, error);
        }
        if (error || rotate != rotated || (is_log_large(drain, log_bytes_max) && !is_limited(drain))) {
            change_log(drain);
        }
        if (error == 0) {
            /* REQUEST, release side of the answer. */
            atomic_store_explicit(&drain->rotated, rotated = rotate, memory_order_release);
        }
    }
}
