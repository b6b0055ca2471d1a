#include "frame.h"

#include "clock.h"
#include "crc32.h"
#include "names.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

enum {
    HEADER_BYTES = 64,
    RUN_ID_BYTES = sizeof(((shmlog_constants *)0)->run_id),
    UNLANED_AT = HEADER_BYTES + 2 * (int)sizeof(shmlog_anchor),
    RUN_ID_AT = UNLANED_AT + SHMLOG_REASONS * 8,
    FIXED_BYTES = RUN_ID_AT + RUN_ID_BYTES
};

_Static_assert(FIXED_BYTES == 232, "docs/format.md");

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

static bool put_name(shmlog_drain *drain, uint32_t id)
{
    shmlog_frame *frame = &drain->frame;
    const char *text;
    uint32_t bytes;

    if (!shmlog_name_text(drain->segment->names, id, &text, &bytes)) {
        return false;
    }
    if (frame->names_bytes + 16 + bytes > SHMLOG_FRAME_NAMES_BYTES) {
        return false;
    }
    frame->names_bytes += put_text(frame->names + frame->names_bytes, id, text, bytes);
    frame->name_count++;
    drain->names_staged[id / 8] = (uint8_t)(drain->names_staged[id / 8] | 1u << id % 8);
    return true;
}

/* Have the frame define the name, unless this log does already. */
static bool define_name(shmlog_drain *drain, uint32_t id)
{
    return (id < SHMLOG_NAMES_MAX && has_bit(drain->names_staged, id)) || put_name(drain, id);
}

/* Each name stands in two frames of a log, if it has two: a damaged one costs the others nothing. */
static void repeat_names(shmlog_drain *drain)
{
    if (drain->first) {
        memset(drain->names_staged, 0, SHMLOG_FRAME_NAME_BITMAP);
    }
    for (uint32_t byte = 0; byte < SHMLOG_FRAME_NAME_BITMAP; byte++) {
        unsigned due = drain->names_seen[byte] & (drain->first ? 0xffu : ~(unsigned)drain->names_twice[byte]);
        for (uint32_t bit = 0; due >> bit; bit++) {
            if (due >> bit & 1) {
                (void)put_name(drain, byte * 8 + bit);
            }
        }
    }
}

/* ---- lanes ---- */

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

/* False: the counts make no sense, and no reader would believe them. */
static bool take_gap(const shmlog_lane *lane, uint64_t position, shmlog_cursor *cursor)
{
    uint64_t counts[SHMLOG_REASONS];
    copy_data(lane, position, SHMLOG_GAP_SLOTS, (unsigned char *)counts, sizeof counts);
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        if (counts[reason] > SHMLOG_COUNT_MAX) {
            return false;
        }
    }
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        if (counts[reason] > cursor->gapped[reason]) {
            cursor->seq += counts[reason] - cursor->gapped[reason];
            cursor->gapped[reason] = counts[reason];
        }
    }
    return true;
}

static void take_owner(const shmlog_lane *lane, uint64_t position, const shmlog_unit *unit, shmlog_cursor *cursor)
{
    cursor->tenancy++;
    cursor->told_once = true;
    cursor->owner_bytes = shmlog_extent_count(unit->value);
    copy_data(lane, position, unit->slots, (unsigned char *)cursor->owner, cursor->owner_bytes);
}

/* Bring the cursor behind the unit. False: the unit makes no sense. */
static bool take_unit(shmlog_drain *drain, const shmlog_lane *lane, const shmlog_unit *unit, shmlog_cursor *cursor)
{
    uint64_t records = 0;

    switch (unit->kind) {
    case SHMLOG_GAP:
        if (!take_gap(lane, cursor->position, cursor)) {
            return false;
        }
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

/* Where the units that can be in the ring from `begin` on end. */
static uint64_t end_of_lane(const shmlog_lane *lane, uint64_t begin)
{
    uint64_t end = begin + shmlog_lane_capacity(lane);
    /* FINAL, acquire side: what lies behind it is not in the run, though it may be committed. */
    uint64_t final = atomic_load_explicit(&lane->shared->final, memory_order_acquire);
    if (!final || shmlog_final_position(final) >= end) {
        return end;
    }
    return shmlog_final_position(final) > begin ? shmlog_final_position(final) : begin;
}

/* Bring the staged cursor behind all whole units that fit the frame. */
static void walk_lane(shmlog_drain *drain, const shmlog_lane *lane, shmlog_cursor *cursor, uint64_t slots_max)
{
    drain->frame.is_full = slots_max == 0;
    uint64_t begin = cursor->position;
    uint64_t end = end_of_lane(lane, begin);
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
    frame->entries_bytes += SHMLOG_FRAME_ENTRY_BYTES;
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

uint64_t shmlog_frame_add_lane(shmlog_drain *drain, uint32_t number)
{
    shmlog_frame *frame = &drain->frame;
    shmlog_cursor *cursor = &drain->staged[number];
    const shmlog_cursor *before = &drain->cursors[number];
    shmlog_lane lane;

    shmlog_segment_view_lane(drain->segment, number, &lane);
    /* ALLOT, acquire side: the lane has memory. */
    if (!atomic_load_explicit(&lane.shared->allotted, memory_order_acquire)) {
        return 0;
    }
    drain->known_lanes = number < drain->known_lanes ? drain->known_lanes : number + 1;
    bool repeats = drain->first || before->told_once;
    *cursor = *before;
    cursor->used = true;
    cursor->told_once = drain->first;
    /* relaxed: our own flag. A damaged lane gives nothing any more. */
    if (!atomic_load_explicit(&lane.shared->damaged, memory_order_relaxed)) {
        walk_lane(drain, &lane, cursor, drain->frame_slots - frame->slots_bytes / sizeof(shmlog_slot));
    }
    uint64_t slots = cursor->position - before->position;
    uint32_t number_in_run = drain->segment->constants.first_lane + number;
    if (slots || repeats) {
        add_entry(frame, number_in_run, before, slots);
        copy_slots(&lane, before->position, slots, frame->slots + frame->slots_bytes);
        frame->slots_bytes += slots * sizeof(shmlog_slot);
    }
    if (repeats) {
        add_owner(frame, number_in_run, before);
    }
    return slots;
}

void shmlog_frame_add_gap(shmlog_drain *drain, uint32_t number, const uint64_t counts[SHMLOG_REASONS])
{
    shmlog_frame *frame = &drain->frame;
    const shmlog_cursor *before = &drain->cursors[number];
    shmlog_cursor *cursor = &drain->staged[number];
    shmlog_slot slots[4]; /* a ring of its own, with the laps of the lane's */
    shmlog_lane lane;

    shmlog_segment_view_lane(drain->segment, number, &lane);
    lane.slots = slots;
    lane.mask = 3;
    shmlog_unit_head head = {shmlog_ticks(drain->segment->tsc), 0, 0, SHMLOG_GAP, 0};
    (void)shmlog_lane_write_bytes(&lane, before->position, &head, counts, SHMLOG_REASONS * sizeof *counts);
    *cursor = *before;
    if (!take_gap(&lane, before->position, cursor)) {
        mark_damaged(&lane);
        return;
    }
    cursor->position += SHMLOG_GAP_SLOTS;
    cursor->used = true;
    add_entry(frame, drain->segment->constants.first_lane + number, before, SHMLOG_GAP_SLOTS);
    copy_slots(&lane, before->position, SHMLOG_GAP_SLOTS, frame->slots + frame->slots_bytes);
    frame->slots_bytes += SHMLOG_GAP_SLOTS * sizeof(shmlog_slot);
}

/* ---- frames ---- */

void shmlog_frame_begin(shmlog_drain *drain)
{
    shmlog_frame *frame = &drain->frame;
    frame->entries_bytes = frame->names_bytes = frame->owners_bytes = frame->slots_bytes = 0;
    frame->lane_count = frame->name_count = frame->owner_count = 0;
    frame->is_full = false;
    memcpy(drain->names_staged, drain->names_seen, SHMLOG_FRAME_NAME_BITMAP);
    repeat_names(drain);
}

static void fill_header(const shmlog_drain *drain, unsigned char *header, size_t length)
{
    const shmlog_frame *frame = &drain->frame;
    const shmlog_header *shared = drain->segment->header;
    shmlog_anchor now = shmlog_clock_anchor(drain->segment->tsc);

    memset(header, 0, FIXED_BYTES);
    memcpy(header, "SLF2", 4);
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
    memcpy(header + HEADER_BYTES, &drain->segment->constants.anchor, sizeof now);
    memcpy(header + HEADER_BYTES + sizeof now, &now, sizeof now);
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        /* relaxed: a counter. */
        put_u64(header + UNLANED_AT + 8 * reason,
                atomic_load_explicit(&shared->unlaned[reason], memory_order_relaxed));
    }
    memcpy(header + RUN_ID_AT, drain->segment->constants.run_id, RUN_ID_BYTES);
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

int shmlog_frame_write(shmlog_drain *drain, size_t *length)
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
